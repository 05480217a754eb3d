import ProviderLoader

// Prints the loader's configuration and survey, for tests that run it with raised privileges.
//
//   LoaderProbe OVERRIDE-DIRECTORY MAIN-DIRECTORY PROVIDER-DIRECTORY SYSFS

let paths = CommandLine.arguments.dropFirst()
guard paths.count == 4 else {
    fatalError("usage: LoaderProbe OVERRIDE-DIRECTORY MAIN-DIRECTORY PROVIDER-DIRECTORY SYSFS")
}
var configuration = LoaderConfiguration.standard(builtIn: [])
configuration.overrideDirectory = paths[1]
configuration.mainDirectory = paths[2]
configuration.providerDirectory = paths[3]
configuration.sysfsPath = paths[4]

let survey = ProviderLoader(configuration: configuration).survey()
print("privileged: \(configuration.isPrivileged)")
for problem in survey.problems { print("problem: \(problem)") }
for entry in survey.entries {
    for candidate in entry.candidates {
        let file = candidate.driverFile ?? "built in"
        print("\(entry.device.name): \(file): \(candidate.verdict.outcome): \(candidate.verdict.message)")
    }
}

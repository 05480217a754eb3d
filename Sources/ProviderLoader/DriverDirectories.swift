import Glibc

/// The driver files of all directories: of `RDMA_DRIVER_PATH`, the override directory and the main directory.
struct DriverDirectories {
    /// A driver file of a provider.
    struct Entry: Sendable {
        /// Path of the driver file.
        let path: String
        let origin: Candidate.Origin
        let file: DriverFile
        /// Absolute path of its library.
        let library: String
        /// The reason why the driver file is refused; nil where it is not.
        let objection: Problem?
    }

    /// A mask: an empty file, or a link to /dev/null, which hides the provider of its name.
    struct Mask: Sendable {
        let path: String
        let origin: Candidate.Origin
        let provider: String

        /// Whether it hides a provider of that origin: a mask counts in its own directory and in all lower ranks.
        func hides(_ provider: String, from origin: Candidate.Origin) -> Bool {
            self.provider == provider && self.origin <= origin
        }
    }

    private(set) var entries: [Entry] = []
    private(set) var masks: [Mask] = []
    private(set) var problems: [Problem] = []

    private let trust: FileTrust

    private static let suffix = ".driver"

    init(_ configuration: LoaderConfiguration) {
        trust = FileTrust(configuration)
        let listed = (configuration.setting(.driverPath) ?? "").split(separator: ":").map(String.init)
        for (position, directory) in listed.enumerated() {
            read(directory, .environment(position: position), libraries: nil)
        }
        read(configuration.overrideDirectory, .override, libraries: configuration.providerDirectory)
        read(configuration.mainDirectory, .main, libraries: configuration.providerDirectory)
    }

    /// Reads one directory. A relative `library` begins in `libraries`; nil: in the directory itself.
    private mutating func read(_ directory: String, _ origin: Candidate.Origin, libraries: String?) {
        let found: [String]
        let resolved: String
        do throws(Errno) {
            resolved = try resolve(directory)
            found = try names(inDirectory: resolved)
        } catch {
            // A standard directory may be missing, one of RDMA_DRIVER_PATH may not.
            if error.code != ENOENT || libraries == nil {
                let hint = libraries == nil ? "correct RDMA_DRIVER_PATH" : "see its permissions: ls -ld '\(directory)'"
                problems.append(Problem(path: directory, message: error.text, hint: hint))
            }
            return
        }
        if let problem = trust.objection(toDirectory: resolved) ?? trust.objection(toDirectoriesAbove: resolved) {
            problems.append(
                Problem(
                    path: directory, message: "the directory is not read: \(problem.message)", hint: problem.hint))
            return
        }
        for name in found where name.hasSuffix(DriverDirectories.suffix) {
            do throws(Problem) {
                // Messages show an absolute path as it was configured.
                let shown = directory.hasPrefix("/") ? directory : resolved
                try read(file: "\(shown)/\(name)", origin, libraries: libraries ?? shown)
            } catch {
                problems.append(error)
            }
        }
    }

    private mutating func read(file path: String, _ origin: Candidate.Origin, libraries: String) throws(Problem) {
        let stem = String(lastComponent(path).dropLast(DriverDirectories.suffix.count))
        let contents: [UInt8]
        let objection: Problem?
        do throws(Errno) {
            var link = stat()
            guard lstat(path, &link) == 0 else { throw Errno(code: errno) }
            // A FIFO must not make the open wait.
            let descriptor = try FileDescriptor(opening: path, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY)
            let status = try descriptor.status()
            guard status.isRegular || status.isNullDevice else {
                throw Errno(code: EINVAL)
            }
            contents = status.isNullDevice ? [] : try descriptor.read(atMost: DriverFile.maximumSize + 1)
            objection =
                status.isNullDevice
                ? trust.objection(to: path, link)
                : try objectionToFile(at: path, link, status)
        } catch {
            throw problem(path, error)
        }
        guard !contents.isEmpty else {
            if let objection { throw objection }
            masks.append(Mask(path: path, origin: origin, provider: stem))
            return
        }
        let file = try DriverFile(parsing: contents, path: path)
        let library = file.library ?? "\(file.name).so"
        entries.append(
            Entry(
                path: path, origin: origin, file: file,
                library: library.hasPrefix("/") ? library : "\(libraries)/\(library)", objection: objection))
        if let objection { problems.append(objection) }
    }

    /// Checks the link, if it is one, the file, and the directories above the link's target.
    private func objectionToFile(at path: String, _ link: stat, _ status: stat) throws(Errno) -> Problem? {
        if let problem = trust.objection(to: path, link) ?? trust.objection(to: path, status) { return problem }
        return link.isLink ? trust.objection(toDirectoriesAbove: try resolve(path)) : nil
    }

    private func problem(_ path: String, _ error: Errno) -> Problem {
        switch error.code {
        case EINVAL, ENXIO:
            Problem(path: path, message: "it is not a regular file", hint: "remove it, or give it another suffix")
        case ENOENT where linkTarget(path) != nil:
            Problem(path: path, message: "it links to \(linkTarget(path)!), which is not there", hint: "remove it")
        default:
            Problem(path: path, message: error.text, hint: "see its permissions: ls -l '\(path)'")
        }
    }
}

import CIBVerbs
import CLinux
import CProviderABI
import Glibc
import Locking

/// The providers that this process has loaded. Each entry point is called once, each library is opened once and never
/// closed, because objects of open devices call into it.
final class ProviderRegistry: Sendable {
    static let shared = ProviderRegistry()

    private struct State {
        var libraries: [FileIdentity: Result<Provider, LoadFailure>] = [:]
        /// By the address of the entry point.
        var entries: [UInt: Result<Provider, LoadFailure>] = [:]
    }

    private let state = Locked(State())

    /// A built-in provider.
    func load(_ builtIn: BuiltInProvider) throws(LoadFailure) -> Provider {
        let provider = try state.withLock { state in ask(builtIn.entry, &state) }.get()
        guard provider.name == builtIn.name else {
            throw LoadFailure(.name, EPROTO, "its name is `\(provider.name)`")
        }
        return provider
    }

    /// The provider of a library. The first call opens the library and calls its entry point.
    func load(_ file: FileIdentity, trust: FileTrust) throws(LoadFailure) -> Provider {
        try state.withLock { (state) -> Result<Provider, LoadFailure> in
            if let known = state.libraries[file] { return known }
            do throws(LoadFailure) {
                try check(file, trust: trust)
                let opened = try open(file)
                // The library stays in the process from here on, so the result of its entry point is final.
                let result = negotiate(opened, file, &state)
                state.libraries[file] = result
                return result
            } catch {
                return .failure(error)
            }
        }.get()
    }

    /// Warnings about the library of the provider: the program has opened it by itself, or another library for the same
    /// provider or hardware is in this process.
    func warnings(about provider: Provider) -> [String] {
        guard let library = provider.library else { return [] }
        var warnings: [String] = []
        if library.wasMapped {
            warnings.append(
                "\(library.path) had been opened in this process before it was loaded as a provider: "
                    + "do not link programs with it")
        }
        warnings += copies(of: library, named: provider.name).map { path in
            "\(path) is in this process beside \(library.path), which serves: "
                + "functions of the one must not be called on objects of the other"
        }
        return warnings
    }

    /// Paths of other libraries in this process for the same provider or hardware as `library`.
    private func copies(of library: Provider.Library, named name: String) -> [String] {
        var paths: Set<String> = []
        state.withLock { state in
            for case .success(let other) in state.libraries.values where other.name == name {
                if let path = other.library?.path, path != library.path { paths.insert(path) }
            }
        }
        // libmlx5.so.1 is rdma-core's provider for mlx5 and, linked as -lmlx5, a library of its own.
        for path in mappedLibraries() where path != library.path {
            let file = lastComponent(path)
            if file.hasPrefix("lib\(name).so") || file == lastComponent(library.path) {
                paths.insert(path)
            }
        }
        return paths.sorted()
    }

    /// Checks the file again, now through a descriptor: it may have been replaced.
    private func check(_ file: FileIdentity, trust: FileTrust) throws(LoadFailure) {
        let image: ELFImage
        let status: stat
        do throws(Errno) {
            let descriptor = try FileDescriptor(opening: file.path, flags: O_RDONLY | O_NONBLOCK | O_NOCTTY)
            status = try descriptor.status()
            guard FileIdentity(path: file.path, status) == file else { throw Errno(code: ESTALE) }
            image = ELFImage(try descriptor.read(atMost: ELFImage.prefixLength))
        } catch {
            throw LoadFailure(.load, error.code, "\(file.path) cannot be read: \(error.text)")
        }
        if let problem = trust.objection(to: file.path, status) {
            throw LoadFailure(.ownership, EPERM, problem.message)
        }
        if let objection = image.objection(fileSize: UInt64(status.st_size)) {
            throw LoadFailure(.load, ENOEXEC, objection)
        }
    }

    private struct OpenedLibrary {
        let handle: UnsafeMutableRawPointer
        let wasMapped: Bool
    }

    private func open(_ file: FileIdentity) throws(LoadFailure) -> OpenedLibrary {
        let wasMapped = dlopen(file.path, RTLD_LAZY | RTLD_NOLOAD) != nil
        errno = 0
        guard let handle = dlopen(file.path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) else {
            // These errors are about the process, not about the library.
            let code = [EMFILE, ENFILE, ENOMEM, EPERM, EACCES].contains(errno) ? errno : ELIBBAD
            throw LoadFailure(.load, code, "it does not load: \(text(dlerror()))")
        }
        return OpenedLibrary(handle: handle, wasMapped: wasMapped)
    }

    private func negotiate(
        _ opened: OpenedLibrary, _ file: FileIdentity, _ state: inout State
    ) -> Result<Provider, LoadFailure> {
        guard let symbol = dlsym(opened.handle, RDMA_PROVIDER_ENTRY_SYMBOL),
            linux_symbol_is_own(opened.handle, symbol) != 0
        else {
            return .failure(
                LoadFailure(
                    .load, ELIBBAD,
                    "it is not a provider for this core: it does not export \(RDMA_PROVIDER_ENTRY_SYMBOL)"))
        }
        let entry = unsafeBitCast(symbol, to: BuiltInProvider.EntryPoint.self)
        return ask(entry, &state).map { provider in
            var provider = provider
            provider.library = Provider.Library(path: file.path, wasMapped: opened.wasMapped)
            return provider
        }
    }

    private func ask(_ entry: BuiltInProvider.EntryPoint, _ state: inout State) -> Result<Provider, LoadFailure> {
        let address = UInt(bitPattern: unsafeBitCast(entry, to: UnsafeRawPointer.self))
        if let known = state.entries[address] { return known }
        let result = Result { () throws(LoadFailure) in try Provider(entry: entry) }
        state.entries[address] = result
        return result
    }
}

/// The paths of all libraries that are mapped in this process.
private func mappedLibraries() -> [String] {
    var paths: [String] = []
    withUnsafeMutablePointer(to: &paths) { paths in
        linux_visit_libraries(
            { path, context in
                guard let path, let context else { return }
                context.assumingMemoryBound(to: [String].self).pointee.append(String(cString: path))
            }, paths)
    }
    return paths
}

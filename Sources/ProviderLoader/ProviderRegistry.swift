import CIBVerbs
import CLinux
import CProviderABI
import Glibc

/// What this process has loaded: each entry point is called once, each library opened once and never closed.
final class ProviderRegistry: Sendable {
    static let shared = ProviderRegistry()

    private struct State {
        var libraries: [FileIdentity: Result<LoadedLibrary, LoadFailure>] = [:]
        /// By the address of the entry point.
        var entries: [UInt: Result<LoadedProvider, LoadFailure>] = [:]
    }

    private let state = Locked(State())

    /// The provider that is linked in.
    func load(_ builtIn: BuiltInProvider) throws(LoadFailure) -> LoadedProvider {
        let provider = try state.withLock { state in ask(builtIn.entry, &state) }.get()
        guard provider.name == builtIn.name else {
            throw LoadFailure(.name, EPROTO, "it calls itself `\(provider.name)`")
        }
        return provider
    }

    /// Opens the library, if that has not been done, and asks its entry point.
    func load(_ file: FileIdentity, trust: FileTrust) throws(LoadFailure) -> LoadedLibrary {
        try state.withLock { (state) -> Result<LoadedLibrary, LoadFailure> in
            if let known = state.libraries[file] { return known }
            do throws(LoadFailure) {
                try check(file, trust: trust)
                let opened = try open(file)
                // From here on the library is mapped, and what it answers is final.
                let result = negotiate(opened, file, &state)
                state.libraries[file] = result
                return result
            } catch {
                return .failure(error)
            }
        }.get()
    }

    /// Paths of other libraries in this process for the same provider or hardware as `library`.
    func copies(of library: LoadedLibrary) -> [String] {
        var paths: Set<String> = []
        state.withLock { state in
            for case .success(let other) in state.libraries.values
            where other.provider.name == library.provider.name && other.path != library.path {
                paths.insert(other.path)
            }
        }
        // libmlx5.so.1 is rdma-core's provider for mlx5 and, linked as -lmlx5, a library of its own.
        for path in mappedLibraries() where path != library.path {
            let name = lastComponent(path)
            if name.hasPrefix("lib\(library.provider.name).so") || name == lastComponent(library.path) {
                paths.insert(path)
            }
        }
        return paths.sorted()
    }

    /// Looks once more at the file, now through a descriptor.
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
            throw LoadFailure(.ownership, EPERM, problem.sentence)
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
        guard let handle = dlopen(file.path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) else {
            throw LoadFailure(.load, ELIBBAD, "it does not load: \(text(dlerror()))")
        }
        return OpenedLibrary(handle: handle, wasMapped: wasMapped)
    }

    private func negotiate(
        _ opened: OpenedLibrary, _ file: FileIdentity, _ state: inout State
    ) -> Result<LoadedLibrary, LoadFailure> {
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
            LoadedLibrary(provider: provider, path: file.path, wasMapped: opened.wasMapped)
        }
    }

    private func ask(_ entry: BuiltInProvider.EntryPoint, _ state: inout State) -> Result<LoadedProvider, LoadFailure> {
        let address = UInt(bitPattern: unsafeBitCast(entry, to: UnsafeRawPointer.self))
        if let known = state.entries[address] { return known }
        let result = Result { () throws(LoadFailure) in try LoadedProvider(entry: entry) }
        state.entries[address] = result
        return result
    }
}

/// A provider out of a library.
struct LoadedLibrary: Sendable {
    let provider: LoadedProvider
    /// Path of the library without links.
    let path: String
    /// Somebody else had opened the library before the loader did.
    let wasMapped: Bool
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

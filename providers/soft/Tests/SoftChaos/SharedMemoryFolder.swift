import CNamespaces
import Glibc

/// A small /dev/shm of this program and its peers alone, in a mount namespace of its own.
struct SharedMemoryFolder {
    enum State: String, CaseIterable { case usual, full, readOnly = "read-only" }

    private static let path = "/dev/shm"
    private static let filler = "/dev/shm/filler"

    /// Throws when this process may not make mount namespaces. Before any thread is started.
    init() throws {
        let error = own_mount_namespace()
        guard error == 0 else { throw Failure("unshare: \(String(cString: strerror(error)))") }
        guard mount("tmpfs", Self.path, "tmpfs", 0, "size=1m") == 0 else {
            throw Failure("mount: \(String(cString: strerror(errno)))")
        }
    }

    func set(_ state: State) throws {
        guard mount("tmpfs", Self.path, "tmpfs", UInt(MS_REMOUNT), "size=1m") == 0 else {
            throw Failure("remount: \(String(cString: strerror(errno)))")
        }
        unlink(Self.filler)
        switch state {
        case .usual: break
        case .full:
            let descriptor = open(Self.filler, O_WRONLY | O_CREAT, 0o600)
            let page = [UInt8](repeating: 0, count: 4096)
            while Glibc.write(descriptor, page, page.count) > 0 {}
            close(descriptor)
        case .readOnly:
            guard mount("tmpfs", Self.path, "tmpfs", UInt(MS_REMOUNT | MS_RDONLY), nil) == 0 else {
                throw Failure("remount read-only: \(String(cString: strerror(errno)))")
            }
        }
    }

    /// The names of the files in /dev/shm, without the filler.
    static func files() -> Set<String> {
        var names: Set<String> = []
        guard let folder = opendir(path) else { return names }
        defer { closedir(folder) }
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if ![".", "..", "filler"].contains(name) { names.insert(name) }
        }
        return names
    }
}

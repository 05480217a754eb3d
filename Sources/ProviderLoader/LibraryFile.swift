import CLinux
import Glibc

/// A library as the file system shows it, before anything opens it.
enum LibraryFile: Sendable {
    /// It is there and may be used.
    case present(FileIdentity)
    /// Nothing is at its path.
    case missing
    /// It must not be used.
    case refused(Verdict.Rule, Problem)

    /// Looks at the file at the absolute path `path`.
    init(at path: String, trust: FileTrust) {
        var status = stat()
        guard stat(path, &status) == 0 else {
            let error = Errno(code: errno)
            self =
                error.code == ENOENT || error.code == ENOTDIR
                ? .missing : .refused(.load, Problem(path: path, sentence: "\(path): \(error.text)", hint: ""))
            return
        }
        guard status.isRegular else {
            let hint = "let the `library` line name a shared library"
            self = .refused(.load, Problem(path: path, sentence: "\(path) is not a regular file", hint: hint))
            return
        }
        do throws(Errno) {
            let resolved = try resolve(path)
            if let problem = trust.objection(to: resolved, status) ?? trust.objection(toDirectoriesAbove: resolved) {
                self = .refused(.ownership, problem)
            } else {
                self = .present(FileIdentity(path: resolved, status))
            }
        } catch {
            self = .refused(.load, Problem(path: path, sentence: "\(path): \(error.text)", hint: ""))
        }
    }
}

/// Which file it is, by whatever path.
struct FileIdentity: Hashable, Sendable {
    /// The path without links.
    let path: String
    private let device: UInt64
    private let inode: UInt64

    init(path: String, _ status: stat) {
        self.path = path
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
    }

    /// The same file, whatever its path.
    static func == (left: FileIdentity, right: FileIdentity) -> Bool {
        left.device == right.device && left.inode == right.inode
    }

    func hash(into hasher: inout Hasher) {
        hasher.combine(device)
        hasher.combine(inode)
    }
}

/// The first fields of an ELF file (elf(5)), for a clear word where dlopen(3) says "No such file or directory": the
/// dynamic linker passes over a library for another machine as if it were not there.
enum ELFHeader {
    /// Offset of the end of `e_machine`, the last field that counts.
    static let length = 20

    /// Why a file that begins with `bytes` cannot be loaded into this program; nil where nothing speaks against it.
    static func objection(_ bytes: [UInt8]) -> String? {
        guard bytes.count >= length, bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) else {
            return "it is not a shared library: it has no ELF header"
        }
        let own = UnsafeRawBufferPointer(start: linux_elf_header(), count: length)
        // EI_CLASS and EI_DATA: word size and byte order.
        guard bytes[4] == own[4], bytes[5] == own[5], machine(bytes) == machine(own) else {
            return "it is for \(describe(bytes)), and this program for \(describe(own))"
        }
        // e_type: ET_DYN.
        guard bytes[own[5] == 1 ? 16 : 17] == 3 else {
            return "it is an ELF file, but not a shared library"
        }
        return nil
    }

    private static func machine(_ header: some RandomAccessCollection<UInt8>) -> Int {
        let at = { Int(header[header.index(header.startIndex, offsetBy: $0)]) }
        return at(5) == 1 ? at(18) | at(19) << 8 : at(18) << 8 | at(19)
    }

    private static func describe(_ header: some RandomAccessCollection<UInt8>) -> String {
        let names = [3: "i386", 21: "PowerPC64", 22: "S/390", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"]
        let number = machine(header)
        let isWide = header[header.index(header.startIndex, offsetBy: 4)] == 2
        return "\(names[number] ?? "machine \(number)") (\(isWide ? 64 : 32) bit)"
    }
}

import CLinux

/// The header of a shared library (elf(5)), checked before dlopen(3) sees the file: for a library of another machine
/// dlopen(3) reports "No such file or directory", and a library that is cut off ends the process by SIGBUS.
package struct ELFImage {
    /// Number of bytes to read: enough for the header and the program headers, which linkers put right behind it.
    package static let prefixLength = 65536

    private let bytes: [UInt8]

    /// `bytes` are the first ones of the file.
    package init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// Offsets within the header, for one word size.
    private struct Layout {
        let headerSize: Int
        let tableOffset: Int
        let entrySize: Int
        let entryCount: Int
        /// p_offset within a program header.
        let segmentOffset: Int
        /// p_filesz within a program header.
        let segmentSize: Int
        let wordSize: Int

        static let wide = Layout(
            headerSize: 64, tableOffset: 32, entrySize: 54, entryCount: 56, segmentOffset: 8, segmentSize: 32,
            wordSize: 8)
        static let narrow = Layout(
            headerSize: 52, tableOffset: 28, entrySize: 42, entryCount: 44, segmentOffset: 4, segmentSize: 16,
            wordSize: 4)
    }

    /// The reason why a file of that size, in bytes, cannot be loaded into this program; nil where there is none.
    func objection(fileSize: UInt64) -> String? {
        let own = ELFImage(Array(UnsafeRawBufferPointer(start: linux_elf_header(), count: 20)))
        guard bytes.count >= 20, bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) else {
            return "it is not a shared library: it has no ELF header"
        }
        guard isWide == own.isWide, isLittle == own.isLittle, machine == own.machine else {
            return "it is for \(description), and this program for \(own.description)"
        }
        // e_type: ET_DYN.
        guard number(at: 16, 2) == 3 else {
            return "it is an ELF file, but not a shared library"
        }
        guard isComplete(fileSize) else {
            return "it is cut off: the file is \(fileSize) bytes long, and its segments reach further"
        }
        return nil
    }

    /// Whether the file begins as an ELF file does.
    package var isELF: Bool { bytes.count >= 20 && bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46]) }

    /// The reason why the dynamic linker does not load a library of this program's machine into the program that the file
    /// is: another machine, or a static program. Nil where there is none.
    package func objectionToPreloading() -> String? {
        let own = ELFImage(Array(UnsafeRawBufferPointer(start: linux_elf_header(), count: 20)))
        guard isELF, isWide == own.isWide, isLittle == own.isLittle, machine == own.machine else {
            return isELF ? "it is for \(description), and verbs for \(own.description)" : "it is not an ELF file"
        }
        // PT_INTERP
        return programHeaders.contains { number(at: $0, 4) == 3 } ? nil : "it is linked statically"
    }

    /// The offsets of the program headers; empty where they are not within the bytes.
    private var programHeaders: [Int] {
        let layout = isWide ? Layout.wide : Layout.narrow
        guard bytes.count >= layout.headerSize,
            let table = Int(exactly: number(at: layout.tableOffset, layout.wordSize)), table <= ELFImage.prefixLength
        else { return [] }
        let entrySize = Int(number(at: layout.entrySize, 2))
        let end = table + entrySize * Int(number(at: layout.entryCount, 2))
        guard end <= bytes.count, entrySize >= layout.segmentSize + layout.wordSize else { return [] }
        return Array(stride(from: table, to: end, by: entrySize))
    }

    /// Whether all segments lie within the file.
    private func isComplete(_ fileSize: UInt64) -> Bool {
        let layout = isWide ? Layout.wide : Layout.narrow
        let headers = programHeaders
        return !headers.isEmpty
            && headers.allSatisfy { entry in
                // PT_LOAD
                guard number(at: entry, 4) == 1 else { return true }
                let offset = number(at: entry + layout.segmentOffset, layout.wordSize)
                let (last, isTooLarge) = offset.addingReportingOverflow(
                    number(at: entry + layout.segmentSize, layout.wordSize))
                return !isTooLarge && last <= fileSize
            }
    }

    /// EI_CLASS is ELFCLASS64.
    private var isWide: Bool { bytes[4] == 2 }
    /// EI_DATA is ELFDATA2LSB.
    private var isLittle: Bool { bytes[5] == 1 }
    /// e_machine.
    private var machine: UInt64 { number(at: 18, 2) }

    private func number(at offset: Int, _ size: Int) -> UInt64 {
        let field = bytes[offset..<offset + size]
        return isLittle
            ? field.reversed().reduce(0) { $0 << 8 | UInt64($1) } : field.reduce(0) { $0 << 8 | UInt64($1) }
    }

    private var description: String {
        let names: [UInt64: String] = [
            3: "i386", 21: "PowerPC64", 22: "S/390", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V",
        ]
        return "\(names[machine] ?? "machine \(machine)") (\(isWide ? 64 : 32) bit)"
    }
}

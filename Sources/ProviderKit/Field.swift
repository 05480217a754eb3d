import CLinux

/// The byte order of a word of memory that the device reads or writes.
public enum ByteOrder: UInt8, Sendable {
    /// Most significant byte first.
    case big
    /// Least significant byte first. This is also the order of words that a driver writes in the order of the host.
    case little
}

/// A bit field of a word of memory that the device reads or writes.
///
/// A provider declares all fields of all its layouts in its file `Layouts`; no other file contains an offset or a
/// shift. In an optimised build they are constants, and an access compiles to a single load or store. A build with
/// SWIFT_RDMA_MUTANTS can alter one field, to check that the tests fail (`Mutant`).
public struct Field<Word: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
    /// The offset of the word in its struct, in bytes.
    public let offset: Int
    /// The lowest bit.
    public let low: Int
    /// The number of bits.
    public let width: Int
    private let order: ByteOrder

    /// Fields are numbered from 0 in the order of `Layouts`. A mutant is selected by that number.
    @inline(__always)
    public init(_ number: Int, _ offset: Int, _ low: Int, _ width: Int, _ order: ByteOrder = .big) {
        self.order = order
        #if SWIFT_RDMA_MUTANTS
            let changes = number == Mutant.chosen.field
            self.offset = changes ? offset + Mutant.chosen.move : offset
            self.low = changes ? max(0, min(Word.bitWidth - 1, low + Mutant.chosen.shift)) : low
            self.width = changes ? max(0, width + Mutant.chosen.widen) : width
        #else
            self.offset = offset
            self.low = low
            self.width = width
        #endif
    }

    /// A field of a whole word.
    @inline(__always)
    public init(_ number: Int, _ offset: Int, _ order: ByteOrder = .big) {
        self.init(number, offset, 0, Word.bitWidth, order)
    }

    @inline(__always)
    private var mask: Word { width >= Word.bitWidth ? .max : (1 &<< Word(truncatingIfNeeded: width)) &- 1 }

    /// The value shifted to the field's position, truncated to its width.
    @inline(__always)
    public func bits(_ value: Word) -> Word { (value & mask) &<< Word(truncatingIfNeeded: low) }

    /// Loads the field from a struct.
    @inline(__always)
    public func get(_ structure: UnsafeRawPointer) -> Word {
        value(of: stored(structure.loadUnaligned(fromByteOffset: offset, as: Word.self)))
    }

    /// Extracts the field from a word in host byte order.
    @inline(__always)
    public func value(of word: Word) -> Word { (word &>> Word(truncatingIfNeeded: low)) & mask }

    /// Stores the word with this field; its other bits become 0.
    @inline(__always)
    public func put(_ value: Word, in structure: UnsafeMutableRawPointer) {
        structure.put(stored(bits(value)), at: offset)
    }

    /// Converts a word between the order of the host and the order in memory.
    @inline(__always)
    public func stored(_ word: Word) -> Word { order == .big ? word.bigEndian : word.littleEndian }
}

/// A field and its value.
public struct Filled<Word: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
    let field: Field<Word>
    let value: Word

    /// A field, and the value to store in it.
    @inline(__always)
    public init(_ field: Field<Word>, _ value: Word) {
        self.field = field
        self.value = value
    }
}

extension UnsafeMutableRawPointer {
    /// Stores a word with two fields; its other bits become 0.
    @inline(__always)
    public func put<Word>(_ first: Filled<Word>, _ second: Filled<Word>) {
        #if SWIFT_RDMA_MUTANTS
            put(0 as Word, at: first.field.offset)
            merge(first)
            merge(second)
        #else
            let word = first.field.bits(first.value) | second.field.bits(second.value)
            put(first.field.stored(word), at: first.field.offset)
        #endif
    }

    /// Stores a word with three fields; its other bits become 0.
    @inline(__always)
    public func put<Word>(_ first: Filled<Word>, _ second: Filled<Word>, _ third: Filled<Word>) {
        #if SWIFT_RDMA_MUTANTS
            put(first, second)
            merge(third)
        #else
            let word =
                first.field.bits(first.value) | second.field.bits(second.value) | third.field.bits(third.value)
            put(first.field.stored(word), at: first.field.offset)
        #endif
    }

    /// Stores a word with four fields; its other bits become 0.
    @inline(__always)
    public func put<Word>(
        _ first: Filled<Word>, _ second: Filled<Word>, _ third: Filled<Word>, _ fourth: Filled<Word>
    ) {
        #if SWIFT_RDMA_MUTANTS
            put(first, second, third)
            merge(fourth)
        #else
            let word =
                first.field.bits(first.value) | second.field.bits(second.value) | third.field.bits(third.value)
                | fourth.field.bits(fourth.value)
            put(first.field.stored(word), at: first.field.offset)
        #endif
    }

    #if SWIFT_RDMA_MUTANTS
        private func merge<Word>(_ filled: Filled<Word>) {
            let word = loadUnaligned(fromByteOffset: filled.field.offset, as: Word.self)
            put(word | filled.field.stored(filled.field.bits(filled.value)), at: filled.field.offset)
        }
    #endif
}

#if SWIFT_RDMA_MUTANTS
    /// An altered field, to check that a test fails: RDMA_MUTANT=FIELD,MOVE,SHIFT,WIDEN in the environment of the
    /// process, read once. MOVE is in bytes, SHIFT and WIDEN in bits.
    struct Mutant {
        let field: Int
        let move: Int
        let shift: Int
        let widen: Int

        static let chosen = Mutant(linux_getenv("RDMA_MUTANT"))

        init(_ text: UnsafePointer<CChar>?) {
            var numbers: InlineArray<4, Int> = [-1, 0, 0, 0]
            var next = text
            var index = 0
            while let start = next, index < 4 {
                var (sign, value, digits, place) = (1, 0, 0, start)
                if place.pointee == 45 {
                    sign = -1
                    place += 1
                }
                while place.pointee >= 48, place.pointee <= 57 {
                    value = 10 * value + Int(place.pointee) - 48
                    digits += 1
                    place += 1
                }
                if digits == 0 { break }
                numbers[index] = sign * value
                index += 1
                next = place.pointee == 44 ? place + 1 : nil
            }
            field = numbers[0]
            move = numbers[1]
            shift = numbers[2]
            widen = numbers[3]
        }
    }
#endif

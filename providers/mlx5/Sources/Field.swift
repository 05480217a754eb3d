import CLinux
import ProviderKit

/// Some bits of a big-endian word of memory that the device reads or writes.
///
/// Every field of every layout is one of these, in `Layouts`, and nowhere else stands an offset or a shift. In a module
/// they are constants, which the compiler folds into the very stores and loads that one would write by hand. A build with
/// SWIFT_RDMA_MUTANTS can alter one field, to see that the tests notice (`Mutant`).
struct Field<Word: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
    /// Where the word lies in its structure, in bytes.
    let offset: Int
    /// The lowest of its bits.
    let low: Int
    /// How many bits.
    let width: Int

    /// Fields have numbers from 0 on, in the order of their tables, by which a mutant is named.
    @inline(__always)
    init(_ number: Int, _ offset: Int, _ low: Int, _ width: Int) {
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

    /// All bits of a word.
    @inline(__always)
    init(_ number: Int, _ offset: Int) { self.init(number, offset, 0, Word.bitWidth) }

    @inline(__always)
    private var mask: Word { width >= Word.bitWidth ? .max : (1 &<< Word(truncatingIfNeeded: width)) &- 1 }

    /// A value in its place in the word; what is too large for it is cut off.
    @inline(__always)
    func bits(_ value: Word) -> Word { (value & mask) &<< Word(truncatingIfNeeded: low) }

    /// The value in a structure.
    @inline(__always)
    func get(_ structure: UnsafeRawPointer) -> Word {
        value(of: Word(bigEndian: structure.loadUnaligned(fromByteOffset: offset, as: Word.self)))
    }

    /// The value in a word that was loaded already, in the order of this machine.
    @inline(__always)
    func value(of word: Word) -> Word { (word &>> Word(truncatingIfNeeded: low)) & mask }

    /// Stores a word of which this field is the only one: its other bits become 0.
    @inline(__always)
    func put(_ value: Word, in structure: UnsafeMutableRawPointer) {
        structure.put(bits(value).bigEndian, at: offset)
    }
}

/// A field and what goes into it.
struct Filled<Word: FixedWidthInteger & UnsignedInteger & BitwiseCopyable> {
    let field: Field<Word>
    let value: Word

    @inline(__always)
    init(_ field: Field<Word>, _ value: Word) {
        self.field = field
        self.value = value
    }
}

extension UnsafeMutableRawPointer {
    /// Stores a word of two fields at once.
    @inline(__always)
    func put<Word>(_ first: Filled<Word>, _ second: Filled<Word>) {
        #if SWIFT_RDMA_MUTANTS
            put(0 as Word, at: first.field.offset)
            merge(first)
            merge(second)
        #else
            put((first.field.bits(first.value) | second.field.bits(second.value)).bigEndian, at: first.field.offset)
        #endif
    }

    /// Stores a word of three fields at once.
    @inline(__always)
    func put<Word>(_ first: Filled<Word>, _ second: Filled<Word>, _ third: Filled<Word>) {
        #if SWIFT_RDMA_MUTANTS
            put(first, second)
            merge(third)
        #else
            let word =
                first.field.bits(first.value) | second.field.bits(second.value) | third.field.bits(third.value)
            put(word.bigEndian, at: first.field.offset)
        #endif
    }

    #if SWIFT_RDMA_MUTANTS
        private func merge<Word>(_ filled: Filled<Word>) {
            let word = loadUnaligned(fromByteOffset: filled.field.offset, as: Word.self)
            put(word | filled.field.bits(filled.value).bigEndian, at: filled.field.offset)
        }
    #endif
}

#if SWIFT_RDMA_MUTANTS
    /// A field that is altered, to see that a test notices: RDMA_MUTANT=FIELD,MOVE,SHIFT,WIDEN in the environment of the
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

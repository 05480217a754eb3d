/// A pattern for device names, as in `match name mlx5_*`: `*` matches any run of characters, `?` one character,
/// `[a-c]` one of a set and `[!a-c]` one outside a set (compare glob(7)).
public struct NamePattern: Sendable, Hashable, CustomStringConvertible {
    /// The text of the pattern.
    public let description: String
    private let elements: [Element]

    private enum Element: Hashable {
        case run
        case one
        case byte(UInt8)
        case set([ClosedRange<UInt8>], isInverted: Bool)
    }

    /// Largest length of a pattern, in bytes. A device name has at most 63.
    static let maximumLength = 256

    /// Parses a pattern; nil where `text` is empty, too long, or has blanks, or a set that is empty or not closed.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard (1...NamePattern.maximumLength).contains(bytes.count), !bytes.contains(where: { $0 <= 0x20 }) else {
            return nil
        }
        var elements: [Element] = []
        var rest = bytes[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "*"):
                if elements.last != .run { elements.append(.run) }
            case UInt8(ascii: "?"):
                elements.append(.one)
            case UInt8(ascii: "["):
                guard let set = NamePattern.takeSet(&rest) else { return nil }
                elements.append(set)
            default:
                elements.append(.byte(byte))
            }
        }
        self.elements = elements
        description = text
    }

    /// Removes the set behind its opening bracket, and returns it.
    private static func takeSet(_ rest: inout ArraySlice<UInt8>) -> Element? {
        let isInverted = rest.first == UInt8(ascii: "!")
        if isInverted { rest.removeFirst() }
        guard let end = rest.firstIndex(of: UInt8(ascii: "]")), end > rest.startIndex else { return nil }
        var members = rest[..<end]
        rest = rest[(end + 1)...]
        var ranges: [ClosedRange<UInt8>] = []
        while let low = members.popFirst() {
            var high = low
            if members.count >= 2, members.first == UInt8(ascii: "-") {
                members.removeFirst()
                high = members.removeFirst()
            }
            guard low <= high else { return nil }
            ranges.append(low...high)
        }
        return .set(ranges, isInverted: isInverted)
    }

    /// Whether the whole name fits the pattern. Takes at most pattern length times name length steps.
    public func matches(_ name: String) -> Bool {
        let name = Array(name.utf8)
        var position = 0
        var element = 0
        // The element behind the latest `*`, and the position at which it is tried again after a mismatch.
        var retry: (element: Int, position: Int)?
        while position < name.count {
            if element < elements.count, elements[element] == .run {
                element += 1
                retry = (element, position)
            } else if element < elements.count, fits(elements[element], name[position]) {
                element += 1
                position += 1
            } else if let (again, start) = retry {
                element = again
                position = start + 1
                retry = (again, start + 1)
            } else {
                return false
            }
        }
        return elements[element...].allSatisfy { $0 == .run }
    }

    private func fits(_ element: Element, _ byte: UInt8) -> Bool {
        switch element {
        case .run, .one: true
        case .byte(let expected): byte == expected
        case .set(let ranges, let isInverted): ranges.contains { $0.contains(byte) } != isInverted
        }
    }
}

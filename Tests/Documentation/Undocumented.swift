// What scripts/check-documentation must find, and nothing else: each line that it must name ends in
// the word "undocumented". A member that implements a requirement takes the requirement's text.
// The check compiles this file alone; the package does not.

/// Documented.
public struct Documented: Equatable, RawRepresentable, CustomStringConvertible, Sendable {
    public var rawValue: UInt32
    ///
    public var empty: Int { 0 }  // undocumented

    /// Documented.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Documented.
    public static let known = Documented(rawValue: 1)
    public static let unknown = Documented(rawValue: 2)  // undocumented

    public var description: String { "documented by CustomStringConvertible" }
    public static func == (left: Self, right: Self) -> Bool { left.rawValue == right.rawValue }

    var internalIsNotAsked = 0
}

public struct Bare {}  // undocumented

/// Documented; its raw value is the compiler's.
public enum Cases: Int, CaseIterable, Codable {
    /// Documented.
    case first
    case second  // undocumented
}

/// Documented.
public protocol Verb {
    func post()  // undocumented
    /// Documented.
    func poll()
}

extension Documented: Verb {
    public func post() {}
    public func poll() {}
}

extension Verb {
    public func flush() {}  // undocumented
}

extension Int {
    public var asVerb: Int { self }  // undocumented
    /// Documented.
    public var asOther: Int { self }
}

/// Documented.
public final class Holder {
    /// Documented.
    public init() {}
    public subscript(index: Int) -> Int { index }  // undocumented
    deinit {}
}

public typealias Alias = Documented  // undocumented

public func free() {}  // undocumented

@available(*, unavailable, renamed: "free")
public func liberate() {}

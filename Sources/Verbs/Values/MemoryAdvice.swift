/// What is going to happen to memory with on-demand paging (enum ibv_advise_mr_advice).
@frozen public struct MemoryAdvice: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// It will be read: fault the pages in.
    @inlinable public static var prefetch: Self { Self(rawValue: 0) }
    /// It will be written: fault the pages in, writable.
    @inlinable public static var prefetchForWriting: Self { Self(rawValue: 1) }
    /// Map to the device what is there already, fault nothing in.
    @inlinable public static var prefetchPresent: Self { Self(rawValue: 2) }

    /// The name in the specification's terms; nil for a number that this package does not know.
    public var name: String? {
        switch rawValue {
        case 0: "PREFETCH"
        case 1: "PREFETCH_WRITE"
        case 2: "PREFETCH_NO_FAULT"
        default: nil
        }
    }
}

/// Advice about memory with on-demand paging (enum ibv_advise_mr_advice).
@frozen public struct MemoryAdvice: OpenEnumeration {
    /// The number in verbs.h.
    public let rawValue: UInt32
    /// The value that stands for that number; every number is accepted.
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Fault the pages in for reading (`IBV_ADVISE_MR_ADVICE_PREFETCH`).
    @inlinable public static var prefetch: Self { Self(rawValue: 0) }
    /// Fault the pages in for writing (`IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE`).
    @inlinable public static var prefetchForWriting: Self { Self(rawValue: 1) }
    /// Map the pages that are present to the device; fault none in (`IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT`).
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

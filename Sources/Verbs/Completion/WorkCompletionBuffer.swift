/// A buffer for completions that is allocated once. Polling fills it without allocating.
@frozen public struct WorkCompletionBuffer: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let base: UnsafeMutablePointer<WorkCompletion>
    /// The largest number of completions that one poll returns.
    @inlinable public var capacity: Int { Int(room) }
    /// `capacity` as the `num_entries` of `poll_cq`.
    @usableFromInline let room: Int32
    @usableFromInline var taken: Int

    /// Makes a buffer for at most `capacity` completions per poll, at least 1.
    public init(capacity: Int) {
        room = Int32(clamping: max(capacity, 1))
        base = .allocate(capacity: Int(room))
        base.initialize(repeating: WorkCompletion(), count: Int(room))
        taken = 0
    }

    deinit { base.deallocate() }

    /// The number of completions that the last poll returned.
    @inlinable public var count: Int { taken }

    /// Whether the last poll returned no completion.
    @inlinable public var isEmpty: Bool { taken == 0 }

    /// The completions that the last poll returned.
    @inlinable public var span: Span<WorkCompletion> {
        @_lifetime(borrow self)
        get { _overrideLifetime(Span(_unsafeStart: base, count: taken), borrowing: self) }
    }

    /// The completion at `index`, from 0 to `count` - 1.
    @inlinable public subscript(index: Int) -> WorkCompletion {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: taken), "there is no completion at that index")
        return base[index]
    }
}

/// Room for completions, to be used again and again: polling fills it without allocating.
@frozen public struct WorkCompletionBuffer: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let base: UnsafeMutablePointer<WorkCompletion>
    /// How many completions it has room for.
    public let capacity: Int
    @usableFromInline var taken: Int

    /// Room for at most `capacity` completions per poll, at least one.
    public init(capacity: Int) {
        self.capacity = max(capacity, 1)
        base = .allocate(capacity: self.capacity)
        base.initialize(repeating: WorkCompletion(), count: self.capacity)
        taken = 0
    }

    deinit { base.deallocate() }

    /// How many the last poll took.
    @inlinable public var count: Int { taken }

    /// Whether the last poll took none.
    @inlinable public var isEmpty: Bool { taken == 0 }

    /// The completions that the last poll took.
    @inlinable public var span: Span<WorkCompletion> {
        @_lifetime(borrow self)
        get { _overrideLifetime(Span(_unsafeStart: base, count: taken), borrowing: self) }
    }

    /// The completion at `index`, from 0 to `count` - 1.
    @inlinable public subscript(index: Int) -> WorkCompletion {
        precondition(index >= 0 && index < taken, "there is no completion at that index")
        return base[index]
    }
}

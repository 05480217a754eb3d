/// Room for completions, to be used again and again: polling fills it without allocating.
@frozen public struct WorkCompletionBuffer: ~Copyable, @unchecked Sendable {
    // Unchecked: the memory belongs to this value alone.
    @usableFromInline let base: UnsafeMutablePointer<WorkCompletion>
    /// How many completions it has room for.
    @inlinable public var capacity: Int { Int(room) }
    /// As poll_cq takes it.
    @usableFromInline let room: Int32
    @usableFromInline var taken: Int

    /// Room for at most `capacity` completions per poll, at least one.
    public init(capacity: Int) {
        room = Int32(clamping: max(capacity, 1))
        base = .allocate(capacity: Int(room))
        base.initialize(repeating: WorkCompletion(), count: Int(room))
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
        precondition(UInt(bitPattern: index) < UInt(bitPattern: taken), "there is no completion at that index")
        return base[index]
    }
}

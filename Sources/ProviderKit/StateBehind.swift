// An object and what its locks guard, in one allocation. The state lies apart from the object, because to change a field of
// a struct is to access all of it, and those who wait for a lock look at the lock meanwhile; it lies close, because its
// address then is known without a load.

/// What lies behind an object begins at a multiple of this, as every part of it does.
private let objectAlignment = 16

extension UnsafeMutablePointer where Pointee: ~Copyable {
    /// Uninitialised room for an object and for three states behind it.
    public static func allocateObject<First, Second, Third>(
        holding: First.Type, _ second: Second.Type, _ third: Third.Type
    ) -> UnsafeMutablePointer<Pointee> {
        allocate(
            roomBehind: MemoryLayout<First>.stride + MemoryLayout<Second>.stride + MemoryLayout<Third>.stride)
    }

    /// Uninitialised room for an object and for two states behind it.
    public static func allocateObject<First, Second>(
        holding: First.Type, _ second: Second.Type
    ) -> UnsafeMutablePointer<Pointee> {
        allocate(roomBehind: MemoryLayout<First>.stride + MemoryLayout<Second>.stride)
    }

    /// Uninitialised room for an object and for a state behind it.
    public static func allocateObject<First>(holding: First.Type) -> UnsafeMutablePointer<Pointee> {
        allocate(roomBehind: MemoryLayout<First>.stride)
    }

    /// Gives back what `allocateObject` made; the states behind must need nothing.
    public func freeObject() {
        deinitialize(count: 1)
        UnsafeMutableRawPointer(self).deallocate()
    }

    private static func allocate(roomBehind: Int) -> UnsafeMutablePointer<Pointee> {
        UnsafeMutableRawPointer.allocate(byteCount: sizeInFront + roomBehind, alignment: objectAlignment)
            .bindMemory(to: Pointee.self, capacity: 1)
    }

    @inline(__always)
    private static var sizeInFront: Int {
        (MemoryLayout<Pointee>.size &+ (objectAlignment &- 1)) & ~(objectAlignment &- 1)
    }

    /// A state of an object that `allocateObject` made.
    /// - Parameter offset: the strides of the states in front of it.
    @inline(__always)
    public func behind<State>(_ offset: Int, as type: State.Type) -> UnsafeMutablePointer<State> {
        (UnsafeMutableRawPointer(self) + (Self.sizeInFront &+ offset)).assumingMemoryBound(to: type)
    }
}

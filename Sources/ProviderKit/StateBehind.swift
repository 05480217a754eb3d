// An object and the state that its locks guard, in one allocation. The state is not a field of the object, because
// changing a field accesses the whole struct, and waiting threads read the lock meanwhile. It is in the same
// allocation, because its address is then computed without a load.

/// The alignment of the state behind an object and of each of its parts.
private let objectAlignment = 16

extension UnsafeMutablePointer where Pointee: ~Copyable {
    /// Allocates uninitialised memory for an object followed by three states.
    public static func allocateObject<First, Second, Third>(
        holding: First.Type, _ second: Second.Type, _ third: Third.Type
    ) -> UnsafeMutablePointer<Pointee> {
        allocate(
            roomBehind: MemoryLayout<First>.stride + MemoryLayout<Second>.stride + MemoryLayout<Third>.stride)
    }

    /// Allocates uninitialised memory for an object followed by two states.
    public static func allocateObject<First, Second>(
        holding: First.Type, _ second: Second.Type
    ) -> UnsafeMutablePointer<Pointee> {
        allocate(roomBehind: MemoryLayout<First>.stride + MemoryLayout<Second>.stride)
    }

    /// Allocates uninitialised memory for an object followed by one state.
    public static func allocateObject<First>(holding: First.Type) -> UnsafeMutablePointer<Pointee> {
        allocate(roomBehind: MemoryLayout<First>.stride)
    }

    /// Deinitialises the object and frees the memory that `allocateObject` returned. The states must be trivial or
    /// already deinitialised.
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

    /// The address of a state of an object that `allocateObject` returned.
    /// - Parameter offset: The sum of the strides of the preceding states.
    @inline(__always)
    public func behind<State>(_ offset: Int, as type: State.Type) -> UnsafeMutablePointer<State> {
        (UnsafeMutableRawPointer(self) + (Self.sizeInFront &+ offset)).assumingMemoryBound(to: type)
    }
}

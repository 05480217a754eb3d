import CKernelABI

/// The offset of a method's output attribute, whose value can be read after the call.
public struct Output<Value: BitwiseCopyable> {
    let offset: Int
}

/// The argument of a uverbs ioctl (RDMA_VERBS_IOCTL): the header, the attributes, and the values that they point to, in
/// one buffer on the caller's stack.
///
///     var method = Method(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY)
///     method.handle(UVERBS_ATTR_DESTROY_CQ_HANDLE, handle)
///     let counts = method.output(UVERBS_ATTR_DESTROY_CQ_RESP, ib_uverbs_destroy_cq_resp.self)
///     try device.call(&method)
///     let response = method[counts]
///
/// | word | content |
/// |---|---|
/// | 0 ..< 3 | `struct ib_uverbs_ioctl_hdr` |
/// | 3 ..< 43 | `struct ib_uverbs_attr`, two words each, in the order in which they were added |
/// | 43 ..< 83 | input values longer than 8 bytes, and output values |
public struct Method: ~Copyable {
    private static let headerWords = 3
    private static let attributeCapacity = 20
    private static let firstValueWord = headerWords + 2 * attributeCapacity
    private static let wordCount = firstValueWord + 40

    private var words = InlineArray<83, UInt64>(repeating: 0)
    private var attributeCount = 0
    private var nextValueWord = Method.firstValueWord
    /// The attributes (one bit each) whose data is the offset of a value. `call` replaces the offset with an address.
    private var relative: UInt32 = 0
    private let object: UInt16
    private let method: UInt16

    /// A method of an object type (`enum uverbs_default_objects`, and the object's `enum uverbs_methods_...`).
    public init(_ object: some RawRepresentable<UInt32>, _ method: some RawRepresentable<UInt32>) {
        self.object = UInt16(truncatingIfNeeded: object.rawValue)
        self.method = UInt16(truncatingIfNeeded: method.rawValue)
    }

    /// Adds the handle of an existing object (UVERBS_ATTR_TYPE_IDR).
    public mutating func handle(_ attribute: some RawRepresentable<UInt32>, _ handle: UInt32) {
        add(attribute.rawValue, length: 0, data: UInt64(handle))
    }

    /// Adds the handle of the object that the method creates.
    public mutating func newHandle(_ attribute: some RawRepresentable<UInt32>) -> Output<UInt32> {
        Output(offset: add(attribute.rawValue, length: 0, data: 0))
    }

    /// Adds an open descriptor. A kernel ignores an unknown attribute that is not `mandatory`
    /// (UVERBS_ATTR_F_MANDATORY).
    public mutating func descriptor(
        _ attribute: some RawRepresentable<UInt32>, _ descriptor: Int32, mandatory: Bool = true
    ) {
        add(attribute.rawValue, length: 0, data: UInt64(bitPattern: Int64(descriptor)), mandatory: mandatory)
    }

    /// Adds the descriptor that the method creates.
    public mutating func newDescriptor(_ attribute: some RawRepresentable<UInt32>) -> Output<Int32> {
        Output(offset: add(attribute.rawValue, length: 0, data: 0))
    }

    /// Adds a constant of an enumeration. The kernel expects 8 bytes.
    public mutating func constant(_ attribute: some RawRepresentable<UInt32>, _ value: UInt64) {
        add(attribute.rawValue, length: 8, data: value)
    }

    /// Adds an input value. Up to 8 bytes are stored in the attribute; a longer value is stored after the attributes.
    public mutating func input<Value: BitwiseCopyable>(
        _ attribute: some RawRepresentable<UInt32>, _ value: Value, mandatory: Bool = true
    ) {
        let size = MemoryLayout<Value>.size
        guard size > 8 else {
            let offset = add(attribute.rawValue, length: size, data: 0, mandatory: mandatory)
            store(value, at: offset)
            return
        }
        let offset = reserve(size)
        store(value, at: offset)
        addRelative(attribute.rawValue, length: size, offset: offset, mandatory: mandatory)
    }

    /// Adds an output value. It stays zero if the kernel does not write it.
    public mutating func output<Value: BitwiseCopyable>(
        _ attribute: some RawRepresentable<UInt32>, _ type: Value.Type, mandatory: Bool = true
    ) -> Output<Value> {
        let offset = reserve(MemoryLayout<Value>.size)
        addRelative(attribute.rawValue, length: MemoryLayout<Value>.size, offset: offset, mandatory: mandatory)
        return Output(offset: offset)
    }

    /// Adds an output buffer of the caller's of up to 65,535 bytes, which must stay valid until the call returns.
    public mutating func output(
        _ attribute: some RawRepresentable<UInt32>, into memory: UnsafeMutableRawBufferPointer
    ) {
        add(attribute.rawValue, length: memory.count, data: UInt64(UInt(bitPattern: memory.baseAddress)))
    }

    /// Adds an input buffer of the caller's, which must stay valid until the call returns. Up to 8 bytes are copied.
    public mutating func input(_ attribute: some RawRepresentable<UInt32>, from memory: UnsafeRawBufferPointer) {
        add(attribute.rawValue, from: memory)
    }

    /// Adds the driver's request and response (UVERBS_ATTR_UHW_IN, UVERBS_ATTR_UHW_OUT), if any.
    public mutating func driver(_ data: DriverData) {
        if data.input.count > 0 { add(UInt32(UVERBS_ATTR_UHW_IN), from: data.input) }
        guard data.output.count > 0 else { return }
        add(
            UInt32(UVERBS_ATTR_UHW_OUT), length: data.output.count,
            data: UInt64(UInt(bitPattern: data.output.baseAddress)))
    }

    /// The value of an output attribute after the call.
    public subscript<Value: BitwiseCopyable>(output: Output<Value>) -> Value {
        withUnsafeBytes(of: words) { $0.loadUnaligned(fromByteOffset: output.offset, as: Value.self) }
    }

    /// Calls the ioctl. Returns 0, or a positive errno value.
    mutating func call(_ descriptor: Int32, driver: UInt32, _ calls: SystemCalls) -> Int32 {
        var header = ib_uverbs_ioctl_hdr()
        header.length = UInt16(8 * (Self.headerWords + 2 * attributeCount))
        header.object_id = object
        header.method_id = method
        header.num_attrs = UInt16(attributeCount)
        header.driver_id = driver
        let (count, relative) = (attributeCount, relative)
        return withUnsafeMutableBytes(of: &words) { bytes in
            bytes.storeBytes(of: header, as: ib_uverbs_ioctl_hdr.self)
            for index in 0..<count where relative & 1 << UInt32(index) != 0 {
                let data = 8 * (Self.headerWords + 2 * index + 1)
                let offset = Int(bytes.load(fromByteOffset: data, as: UInt64.self))
                bytes.storeBytes(
                    of: UInt64(UInt(bitPattern: bytes.baseAddress! + offset)), toByteOffset: data, as: UInt64.self)
            }
            return calls.ioctl(descriptor, bytes.baseAddress)
        }
    }

    // MARK: - Storage

    /// Adds an attribute (`struct ib_uverbs_attr`). Returns the offset of its data.
    @discardableResult
    private mutating func add(_ attribute: UInt32, length: Int, data: UInt64, mandatory: Bool = true) -> Int {
        precondition(attributeCount < Self.attributeCapacity, "the method has more than 20 attributes")
        let word = Self.headerWords + 2 * attributeCount
        let flags = mandatory ? UInt64(UVERBS_ATTR_F_MANDATORY) : 0
        // struct ib_uverbs_attr: attr_id@0, len@2, flags@4, data@8.
        words[word] = UInt64(attribute & 0xFFFF) | UInt64(UInt16(length)) << 16 | flags << 32
        words[word + 1] = data
        attributeCount += 1
        return 8 * (word + 1)
    }

    private mutating func add(_ attribute: UInt32, from memory: UnsafeRawBufferPointer) {
        guard memory.count <= 8 else {
            add(attribute, length: memory.count, data: UInt64(UInt(bitPattern: memory.baseAddress)))
            return
        }
        var data: UInt64 = 0
        withUnsafeMutableBytes(of: &data) { $0.copyMemory(from: memory) }
        add(attribute, length: memory.count, data: data)
    }

    private mutating func addRelative(_ attribute: UInt32, length: Int, offset: Int, mandatory: Bool) {
        relative |= 1 << UInt32(attributeCount)
        add(attribute, length: length, data: UInt64(offset), mandatory: mandatory)
    }

    private mutating func reserve(_ size: Int) -> Int {
        let offset = 8 * nextValueWord
        nextValueWord += (size + 7) / 8
        precondition(nextValueWord <= Self.wordCount, "the values of the method are longer than 320 bytes")
        return offset
    }

    private mutating func store<Value: BitwiseCopyable>(_ value: Value, at offset: Int) {
        withUnsafeMutableBytes(of: &words) { $0.storeBytes(of: value, toByteOffset: offset, as: Value.self) }
    }
}

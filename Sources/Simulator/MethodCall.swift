import CSimulator

/// The type of a method's attribute (the kernel's `struct uverbs_attr_spec`).
enum AttributeType {
    /// The handle of a new object, or of an existing object.
    case newHandle
    case handle(Kind)
    /// A new descriptor, or an existing one: an asynchronous event file or a completion channel.
    case newDescriptor
    case descriptor(isAsynchronous: Bool)
    /// Bytes from the program, of a length in this range; up to 8 of them are in the attribute itself.
    case input(ClosedRange<Int>)
    /// A buffer for bytes from the kernel, and its minimum size.
    case output(Int)
    /// Driver data (UHW).
    case driverInput
    case driverOutput
}

/// An attribute of a method.
struct AttributeSpecification {
    let id: UInt16
    let type: AttributeType
    let isMandatory: Bool

    init(_ id: some RawRepresentable<UInt32>, _ type: AttributeType, isMandatory: Bool = true) {
        self.id = UInt16(truncatingIfNeeded: id.rawValue)
        self.type = type
        self.isMandatory = isMandatory
    }

    fileprivate init(driver id: Int, _ type: AttributeType) {
        self.id = UInt16(id)
        self.type = type
        isMandatory = false
    }
}

/// A call of RDMA_VERBS_IOCTL: its attributes, checked against the method's specification (`uverbs_ioctl.c` of the
/// kernel).
///
/// | bytes  | contents |
/// |--------|----------|
/// | 0 ..< 24 | `struct ib_uverbs_ioctl_hdr`: length, object, method, count of attributes, driver |
/// | 24 …     | `struct ib_uverbs_attr`, 16 bytes each: id@0, length@2, flags@4, data@8 |
struct MethodCall {
    let object: UInt16
    let method: UInt16
    let descriptor: Int32
    let context: Context
    private let attributes: UnsafeMutableRawPointer
    private let count: Int

    /// The errno value for a method that the kernel lacks.
    static let unknown: Int32 = EPROTONOSUPPORT

    init(_ header: UnsafeMutableRawPointer, _ descriptor: Int32, _ context: Context) throws(Refusal) {
        let fields = header.loadUnaligned(as: ib_uverbs_ioctl_hdr.self)
        try demand(
            Int(fields.length) == 24 + 16 * Int(fields.num_attrs), EINVAL, "the header has another length, in bytes",
            has: Int(fields.length), wants: 24 + 16 * Int(fields.num_attrs))
        try demand(fields.reserved1 == 0 && fields.reserved2 == 0, EPROTONOSUPPORT, "a reserved field is not zero")
        try demand(
            fields.driver_id == context.device.codec.identity.driver, EINVAL, "this is another driver's device",
            has: Int(fields.driver_id), wants: Int(context.device.codec.identity.driver))
        object = fields.object_id
        method = fields.method_id
        count = Int(fields.num_attrs)
        attributes = header + 24
        self.descriptor = descriptor
        self.context = context
    }

    // MARK: - Checking

    /// Checks every attribute against the method's specification; their order is free.
    func check(_ specifications: [AttributeSpecification]) throws(Refusal) {
        for index in 0..<count {
            let place = attributes + 16 * index
            let id = place.load(as: UInt16.self)
            let flags = place.load(fromByteOffset: 4, as: UInt16.self)
            try demand(flags & ~3 == 0, EINVAL, "unknown flags of an attribute; attribute", has: Int(id))
            for earlier in 0..<index {
                try demand(
                    (attributes + 16 * earlier).load(as: UInt16.self) != id, EINVAL, "an attribute twice", has: Int(id))
            }
            guard let specification = specification(id, specifications) else {
                try demand(
                    flags & UInt16(UVERBS_ATTR_F_MANDATORY) == 0, EPROTONOSUPPORT,
                    "a mandatory attribute that this method lacks", has: Int(id))
                continue
            }
            try check(place, specification)
        }
        for specification in specifications where specification.isMandatory {
            try demand(
                place(specification.id) != nil, EINVAL, "a mandatory attribute is missing",
                has: Int(specification.id))
        }
    }

    private func specification(
        _ id: UInt16, _ specifications: [AttributeSpecification]
    ) -> AttributeSpecification? {
        for specification in specifications where specification.id == id { return specification }
        switch Int(id) {
        case Int(UVERBS_ATTR_UHW_IN): return AttributeSpecification(driver: Int(id), .driverInput)
        case Int(UVERBS_ATTR_UHW_OUT): return AttributeSpecification(driver: Int(id), .driverOutput)
        default: return nil
        }
    }

    private func check(_ place: UnsafeMutableRawPointer, _ specification: AttributeSpecification) throws(Refusal) {
        let length = Int(place.load(fromByteOffset: 2, as: UInt16.self))
        let id = Int(specification.id)
        let data = place.load(fromByteOffset: 8, as: UInt64.self)
        switch specification.type {
        case .newHandle, .newDescriptor:
            try demand(length == 0, EINVAL, "a handle has no length; attribute", has: id)
        case .handle(let kind):
            try demand(length == 0, EINVAL, "a handle has no length; attribute", has: id)
            try demand(data >> 32 == 0, EINVAL, "a handle has 32 bits; attribute", has: id)
            _ = try context.object(UInt32(truncatingIfNeeded: data), kind, errno: ENOENT)
        case .descriptor(let isAsynchronous):
            try demand(length == 0, EINVAL, "a descriptor has no length; attribute", has: id)
            _ = try context.eventFile(
                Int32(truncatingIfNeeded: data), isAsynchronous: isAsynchronous, errno: EBADF)
        case .input(let lengths):
            try demand(
                lengths.contains(length), EINVAL, "an input of the wrong length, in bytes",
                has: length, wants: lengths.upperBound)
        case .output(let least):
            try demand(length >= least, EINVAL, "less room than the response needs", has: length, wants: least)
            try demand(data != 0, EFAULT, "an output has no address; attribute", has: id)
        case .driverInput, .driverOutput: break
        }
    }

    // MARK: - Inputs and outputs

    private func place(_ id: UInt16) -> UnsafeMutableRawPointer? {
        for index in 0..<count where (attributes + 16 * index).load(as: UInt16.self) == id {
            return attributes + 16 * index
        }
        return nil
    }

    func has(_ id: some RawRepresentable<UInt32>) -> Bool { place(UInt16(truncatingIfNeeded: id.rawValue)) != nil }

    /// The bytes of an input; empty where it is absent.
    func bytes(_ id: UInt16) -> UnsafeRawBufferPointer {
        guard let place = place(id) else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let length = Int(place.load(fromByteOffset: 2, as: UInt16.self))
        let data = place.load(fromByteOffset: 8, as: UInt64.self)
        // An input of up to 8 bytes is in the attribute itself.
        return UnsafeRawBufferPointer(
            start: length <= 8 ? UnsafeRawPointer(place + 8) : UnsafeRawPointer(bitPattern: UInt(data)), count: length)
    }

    /// The buffer of an output; empty where it is absent.
    func room(_ id: UInt16) -> UnsafeMutableRawBufferPointer {
        guard let place = place(id) else { return UnsafeMutableRawBufferPointer(start: nil, count: 0) }
        let data = place.load(fromByteOffset: 8, as: UInt64.self)
        return UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: UInt(data)),
            count: Int(place.load(fromByteOffset: 2, as: UInt16.self)))
    }

    /// An input, or zero where it is absent.
    func value<Value: BitwiseCopyable>(_ id: some RawRepresentable<UInt32>, _ zero: Value) -> Value {
        var value = zero
        let bytes = bytes(UInt16(truncatingIfNeeded: id.rawValue))
        withUnsafeMutableBytes(of: &value) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min($0.count, bytes.count)]))
        }
        return value
    }

    /// A handle or descriptor; nil where it is absent.
    func handle(_ id: some RawRepresentable<UInt32>) -> UInt32? {
        place(UInt16(truncatingIfNeeded: id.rawValue))?.load(fromByteOffset: 8, as: UInt32.self)
    }

    /// The completion channel or event file of an attribute that was checked.
    func eventFile(_ id: some RawRepresentable<UInt32>, isAsynchronous: Bool) throws(Refusal) -> EventFile? {
        guard let handle = handle(id) else { return nil }
        return try context.eventFile(Int32(bitPattern: handle), isAsynchronous: isAsynchronous, errno: EBADF)
    }

    var driver: DriverData {
        DriverData(input: bytes(UInt16(UVERBS_ATTR_UHW_IN)), output: room(UInt16(UVERBS_ATTR_UHW_OUT)))
    }

    /// Returns the new handle or descriptor to the program.
    func made(_ id: some RawRepresentable<UInt32>, _ handle: UInt64) {
        place(UInt16(truncatingIfNeeded: id.rawValue))?.storeBytes(of: handle, toByteOffset: 8, as: UInt64.self)
    }

    /// Writes an output, truncated to its buffer; does nothing where the attribute is absent.
    func respond<Value>(_ id: some RawRepresentable<UInt32>, _ value: Value) {
        let id = UInt16(truncatingIfNeeded: id.rawValue)
        guard let place = place(id) else { return }
        let room = room(id)
        withUnsafeBytes(of: value) { bytes in
            room.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, room.count)]))
        }
        mark(place)
    }

    /// Marks an output that was written to its buffer.
    func markWritten(_ id: some RawRepresentable<UInt32>) {
        if let place = place(UInt16(truncatingIfNeeded: id.rawValue)) { mark(place) }
    }

    /// Sets UVERBS_ATTR_F_VALID_OUTPUT, as the kernel does.
    private func mark(_ place: UnsafeMutableRawPointer) {
        let flags = place.load(fromByteOffset: 4, as: UInt16.self) | UInt16(UVERBS_ATTR_F_VALID_OUTPUT)
        place.storeBytes(of: flags, toByteOffset: 4, as: UInt16.self)
    }
}

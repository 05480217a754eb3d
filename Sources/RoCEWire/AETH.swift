/// ACK extended transport header (IBTA volume 1, 9.3.5; `struct rxe_aeth` of the kernel's rxe).
///
/// | byte | field |
/// |------|-------|
/// | 0    | syndrome |
/// | 1-3  | MSN, message sequence number |
@frozen
public struct AETH: WireFormat {
    /// The length of the AETH on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The name of this header in errors: AETH.
    @inlinable public static var part: PacketPart { .aeth }

    /// The AETH syndrome: ACK, RNR NAK or NAK, with a credit count, timer code or NAK code.
    public var syndrome: AETHSyndrome
    /// The AETH's MSN, the message sequence number: the count of messages that the responder has completed, modulo
    /// 2^24. Higher bits are dropped.
    public var msn: UInt32

    /// Creates an AETH with these fields.
    @inlinable
    public init(syndrome: AETHSyndrome, msn: UInt32) {
        self.syndrome = syndrome
        self.msn = msn
    }

    /// Reads the 4 bytes of an AETH in network order; the caller has checked the length.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        let word = bytes.big(0, as: UInt32.self)
        self.init(syndrome: AETHSyndrome(rawValue: UInt8(truncatingIfNeeded: word >> 24)), msn: low24(word))
    }

    /// Writes the 4 bytes of the AETH in network order; the caller has checked the length.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, UInt32(syndrome.rawValue) << 24 | low24(msn))
    }
}

/// The syndrome of an AETH (IBTA volume 1, 9.7.5.2; `enum aeth_syndrome` of the kernel's rxe).
///
/// | bits 7 | 6:5 | 4:0 |
/// |--------|-----|-----|
/// | 0 | 00 ACK | credit count code; 31 means no limit |
/// | 0 | 01 RNR NAK | timer code |
/// | 0 | 10 reserved | |
/// | 0 | 11 NAK | NAK code |
///
/// Every value is accepted; a reserved one has the kind `.reserved`.
@frozen
public struct AETHSyndrome: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The byte of the AETH syndrome on the wire.
    public let rawValue: UInt8

    /// Creates an AETH syndrome from any byte.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Bits 6:5 of an AETH syndrome: the kind of acknowledgement.
    @frozen
    public enum Kind: UInt8, Hashable, Sendable {
        /// ACK, a positive acknowledgement (`AETH_ACK` in the kernel's rxe, as the names below).
        case ack
        /// RNR NAK, receiver not ready: no receive work request was posted (IBTA volume 1, 9.7.5.2.8; `AETH_RNR_NAK`).
        case rnrNAK
        /// Reserved (`AETH_RSVD`).
        case reserved
        /// NAK, a negative acknowledgement (`AETH_NAK`).
        case nak
    }

    /// The NAK code, bits 4:0 of an AETH syndrome of the kind `.nak` (IBTA volume 1, 9.7.5.2). Every value of 5 bits is
    /// accepted.
    @frozen
    public struct NAKCode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
        /// The NAK code, 0 to 31, as it is in the AETH.
        public let rawValue: UInt8

        /// Creates a NAK code from the low five bits of `rawValue`, as they stand in the AETH.
        @inlinable
        public init(rawValue: UInt8) { self.rawValue = rawValue & 31 }

        /// PSN sequence error: a PSN was skipped. The PSN in the BTH of the NAK is the expected one
        /// (`AETH_NAK_PSN_SEQ_ERROR`).
        @inlinable public static var psnSequenceError: NAKCode { NAKCode(rawValue: 0) }
        /// Invalid request: its length, opcode or order is not allowed (`AETH_NAK_INVALID_REQ`).
        @inlinable public static var invalidRequest: NAKCode { NAKCode(rawValue: 1) }
        /// Remote access error: the R_Key is not valid for the range or the access (IBTA volume 1, 9.7.5.2.4;
        /// `AETH_NAK_REM_ACC_ERR`).
        @inlinable public static var remoteAccessError: NAKCode { NAKCode(rawValue: 2) }
        /// Remote operational error: the responder could not complete the request (`AETH_NAK_REM_OP_ERR`).
        @inlinable public static var remoteOperationalError: NAKCode { NAKCode(rawValue: 3) }
        /// Invalid RD request: an AETH of reliable datagrams only.
        @inlinable public static var invalidRDRequest: NAKCode { NAKCode(rawValue: 4) }
        /// Not of the specification, which reserves it: between two engines of one host, in shared memory, the request is
        /// to be sent again as packets with data.
        @inlinable public static var needsPackets: NAKCode { NAKCode(rawValue: 31) }
    }

    /// The credit count code of an AETH that sets no limit (IBTA volume 1, 9.7.7.2): 31.
    @inlinable public static var unlimitedCredits: UInt8 { 31 }

    /// The AETH syndrome of an ACK without a credit limit, 0x1F, for a responder without end-to-end flow control
    /// (IBTA volume 1, 9.7.7.2; `AETH_ACK_UNLIMITED`).
    @inlinable public static var ack: AETHSyndrome { .ack(credits: unlimitedCredits) }

    /// The AETH syndrome of an ACK with a credit count code, 0 to 31.
    @inlinable
    public static func ack(credits: UInt8) -> AETHSyndrome { AETHSyndrome(rawValue: credits & 31) }

    /// The AETH syndrome of an RNR NAK: the requester sends the request again after the time of `timer`.
    @inlinable
    public static func rnrNAK(_ timer: RNRTimer) -> AETHSyndrome {
        AETHSyndrome(rawValue: Kind.rnrNAK.rawValue << 5 | timer.rawValue)
    }

    /// The AETH syndrome of a NAK.
    @inlinable
    public static func nak(_ code: NAKCode) -> AETHSyndrome {
        AETHSyndrome(rawValue: Kind.nak.rawValue << 5 | code.rawValue)
    }

    /// Bits 6:5 of the AETH syndrome. When bit 7, which is reserved, is set, the kind is `.reserved`.
    @inlinable
    public var kind: Kind {
        switch rawValue >> 5 {
        case 0: .ack
        case 1: .rnrNAK
        case 3: .nak
        default: .reserved
        }
    }

    /// Bits 4:0 of the AETH syndrome of an ACK: the credit count code.
    @inlinable public var credits: UInt8 { rawValue & 31 }

    /// Bits 4:0 of the AETH syndrome of an RNR NAK: the timer code.
    @inlinable public var timer: RNRTimer { RNRTimer(rawValue: rawValue) }

    /// Bits 4:0 of the AETH syndrome of a NAK: the NAK code.
    @inlinable public var nakCode: NAKCode { NAKCode(rawValue: rawValue) }
}

/// The time that a requester waits after an RNR NAK: the 5-bit code of `ibv_qp_attr.min_rnr_timer` (IBTA volume 1,
/// 9.7.5.2.8, table "Encoding for RNR NAK Timer Field"; `enum ib_rnr_timeout` of the kernel).
@frozen
public struct RNRTimer: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The RNR NAK timer code of the AETH, 0 to 31. Code 0 is the longest time.
    public let rawValue: UInt8

    /// Creates a timer code from the low five bits of `rawValue`, as they stand in the AETH.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue & 31 }

    /// The time of the RNR NAK timer code in nanoseconds: 10,000 (code 1, `IB_RNR_TIMER_000_01` of the kernel) to
    /// 655,360,000 (code 0, `IB_RNR_TIMER_655_36`).
    ///
    /// Even codes from 2 on are 20, 40, 80 us and so on, odd codes from 3 on 30, 60, 120 us and so on. Code 0 continues
    /// the even codes after 30.
    @inlinable
    public var nanoseconds: UInt64 {
        if rawValue == 1 { return 10_000 }
        let code = rawValue == 0 ? 32 : UInt64(rawValue)
        return (code & 1 == 0 ? 20_000 : 30_000) << (code / 2 - 1)
    }
}

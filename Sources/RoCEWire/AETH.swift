/// ACK extended transport header (IBTA volume 1, 9.3.5).
///
/// | byte | field |
/// |------|-------|
/// | 0    | syndrome |
/// | 1-3  | MSN, message sequence number |
@frozen
public struct AETH: WireFormat {
    /// Length on the wire: 4 bytes.
    @inlinable public static var byteCount: Int { 4 }
    /// The AETH.
    @inlinable public static var part: PacketPart { .aeth }

    /// ACK, RNR NAK or NAK, and which.
    public var syndrome: AETHSyndrome
    /// Messages completed by the responder, modulo 2^24; more bits are dropped.
    public var msn: UInt32

    /// An AETH of its two fields.
    @inlinable
    public init(syndrome: AETHSyndrome, msn: UInt32) {
        self.syndrome = syndrome
        self.msn = msn
    }

    /// Reads 4 bytes, unchecked.
    @inlinable
    public init(at bytes: UnsafeRawPointer) {
        let word = bytes.big(0, as: UInt32.self)
        self.init(syndrome: AETHSyndrome(rawValue: UInt8(truncatingIfNeeded: word >> 24)), msn: low24(word))
    }

    /// Writes 4 bytes, unchecked.
    @inlinable
    public func emit(at bytes: UnsafeMutableRawPointer) {
        bytes.setBig(0, UInt32(syndrome.rawValue) << 24 | low24(msn))
    }
}

/// The syndrome of an AETH (IBTA volume 1, 9.7.5.2.1, table "AETH Syndrome Field").
///
/// | bits 7 | 6:5 | 4:0 |
/// |--------|-----|-----|
/// | 0 | 00 ACK | credit count code; 31 means no limit |
/// | 0 | 01 RNR NAK | timer code |
/// | 0 | 10 reserved | |
/// | 0 | 11 NAK | NAK code |
///
/// An open type: reserved values are carried.
@frozen
public struct AETHSyndrome: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The byte on the wire.
    public let rawValue: UInt8

    /// Any byte.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The three kinds of answer.
    @frozen
    public enum Kind: UInt8, Hashable, Sendable {
        /// Positive acknowledgement.
        case ack
        /// Receiver not ready: no receive work request was there.
        case rnrNak
        /// Reserved by the specification.
        case reserved
        /// Negative acknowledgement.
        case nak
    }

    /// Why a responder refused (IBTA volume 1, 9.7.5.2.4, table "NAK codes"). An open type: 5 bits.
    @frozen
    public struct NakCode: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
        /// The code, 0 to 31.
        public let rawValue: UInt8

        /// The low five bits of `rawValue`.
        @inlinable
        public init(rawValue: UInt8) { self.rawValue = rawValue & 31 }

        /// A PSN was skipped; the acknowledgement names the one expected.
        @inlinable public static var psnSequenceError: NakCode { NakCode(rawValue: 0) }
        /// The request breaks a rule: length, opcode, order.
        @inlinable public static var invalidRequest: NakCode { NakCode(rawValue: 1) }
        /// The R_Key, the range or the permission is wrong.
        @inlinable public static var remoteAccessError: NakCode { NakCode(rawValue: 2) }
        /// The responder could not complete the request.
        @inlinable public static var remoteOperationalError: NakCode { NakCode(rawValue: 3) }
        /// RD only.
        @inlinable public static var invalidRDRequest: NakCode { NakCode(rawValue: 4) }
    }

    /// The credit code that means "no limit".
    @inlinable public static var unlimitedCredits: UInt8 { 31 }

    /// An ACK without a credit limit, 0x1F: what a responder sends that does no end-to-end flow control.
    @inlinable public static var ack: AETHSyndrome { .ack(credits: unlimitedCredits) }

    /// An ACK with a credit count code, 0 to 31.
    @inlinable
    public static func ack(credits: UInt8) -> AETHSyndrome { AETHSyndrome(rawValue: credits & 31) }

    /// An RNR NAK that asks the requester to wait as long as `timer` says.
    @inlinable
    public static func rnrNak(_ timer: RNRTimer) -> AETHSyndrome { AETHSyndrome(rawValue: 0x20 | timer.rawValue) }

    /// A NAK.
    @inlinable
    public static func nak(_ code: NakCode) -> AETHSyndrome { AETHSyndrome(rawValue: 0x60 | code.rawValue) }

    /// Bits 6:5. A set bit 7, which is reserved, makes the syndrome `.reserved`.
    @inlinable
    public var kind: Kind {
        switch rawValue >> 5 {
        case 0: .ack
        case 1: .rnrNak
        case 3: .nak
        default: .reserved
        }
    }

    /// Bits 4:0 of an ACK.
    @inlinable public var credits: UInt8 { rawValue & 31 }

    /// Bits 4:0 of an RNR NAK.
    @inlinable public var timer: RNRTimer { RNRTimer(rawValue: rawValue) }

    /// Bits 4:0 of a NAK.
    @inlinable public var nakCode: NakCode { NakCode(rawValue: rawValue) }
}

/// How long a requester waits after an RNR NAK: the same 5-bit code as the `min_rnr_timer` attribute of a queue pair
/// (IBTA volume 1, 9.7.5.2.8, table "Encoding for RNR NAK Timer Field").
@frozen
public struct RNRTimer: RawRepresentable, Hashable, Sendable, BitwiseCopyable {
    /// The code, 0 to 31. It is no scale: 0 is the longest time.
    public let rawValue: UInt8

    /// The low five bits of `rawValue`.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue & 31 }

    /// The time in nanoseconds: 10,000 (code 1) to 655,360,000 (code 0).
    ///
    /// Even codes from 2 on double every two codes from 20 us, odd ones from 3 on from 30 us; 0 stands for 32,
    /// and 1 is 10 us.
    @inlinable
    public var nanoseconds: UInt64 {
        if rawValue == 1 { return 10_000 }
        let code = rawValue == 0 ? 32 : UInt64(rawValue)
        return (code & 1 == 0 ? 20_000 : 30_000) << (code / 2 - 1)
    }
}

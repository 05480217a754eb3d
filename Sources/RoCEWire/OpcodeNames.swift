/// The opcodes by name (IBTA volume 1, 9.2.1, table "OpCode field"). The constants in parentheses are those of the
/// kernel's rdma/ib_pack.h. Opcode.swift has the table of their headers.
extension Opcode {
    /// RC SEND first (`IB_OPCODE_RC_SEND_FIRST`).
    @inlinable public static var rcSendFirst: Opcode { Opcode(rawValue: 0x00) }
    /// RC SEND middle (`IB_OPCODE_RC_SEND_MIDDLE`).
    @inlinable public static var rcSendMiddle: Opcode { Opcode(rawValue: 0x01) }
    /// RC SEND last (`IB_OPCODE_RC_SEND_LAST`).
    @inlinable public static var rcSendLast: Opcode { Opcode(rawValue: 0x02) }
    /// RC SEND last with immediate (`IB_OPCODE_RC_SEND_LAST_WITH_IMMEDIATE`).
    @inlinable public static var rcSendLastWithImmediate: Opcode { Opcode(rawValue: 0x03) }
    /// RC SEND only (`IB_OPCODE_RC_SEND_ONLY`).
    @inlinable public static var rcSendOnly: Opcode { Opcode(rawValue: 0x04) }
    /// RC SEND only with immediate (`IB_OPCODE_RC_SEND_ONLY_WITH_IMMEDIATE`).
    @inlinable public static var rcSendOnlyWithImmediate: Opcode { Opcode(rawValue: 0x05) }
    /// RC RDMA WRITE first (`IB_OPCODE_RC_RDMA_WRITE_FIRST`).
    @inlinable public static var rcWriteFirst: Opcode { Opcode(rawValue: 0x06) }
    /// RC RDMA WRITE middle (`IB_OPCODE_RC_RDMA_WRITE_MIDDLE`).
    @inlinable public static var rcWriteMiddle: Opcode { Opcode(rawValue: 0x07) }
    /// RC RDMA WRITE last (`IB_OPCODE_RC_RDMA_WRITE_LAST`).
    @inlinable public static var rcWriteLast: Opcode { Opcode(rawValue: 0x08) }
    /// RC RDMA WRITE last with immediate (`IB_OPCODE_RC_RDMA_WRITE_LAST_WITH_IMMEDIATE`).
    @inlinable public static var rcWriteLastWithImmediate: Opcode { Opcode(rawValue: 0x09) }
    /// RC RDMA WRITE only (`IB_OPCODE_RC_RDMA_WRITE_ONLY`).
    @inlinable public static var rcWriteOnly: Opcode { Opcode(rawValue: 0x0A) }
    /// RC RDMA WRITE only with immediate (`IB_OPCODE_RC_RDMA_WRITE_ONLY_WITH_IMMEDIATE`).
    @inlinable public static var rcWriteOnlyWithImmediate: Opcode { Opcode(rawValue: 0x0B) }
    /// RC RDMA READ request (`IB_OPCODE_RC_RDMA_READ_REQUEST`).
    @inlinable public static var rcReadRequest: Opcode { Opcode(rawValue: 0x0C) }
    /// RC RDMA READ response first (`IB_OPCODE_RC_RDMA_READ_RESPONSE_FIRST`).
    @inlinable public static var rcReadResponseFirst: Opcode { Opcode(rawValue: 0x0D) }
    /// RC RDMA READ response middle (`IB_OPCODE_RC_RDMA_READ_RESPONSE_MIDDLE`).
    @inlinable public static var rcReadResponseMiddle: Opcode { Opcode(rawValue: 0x0E) }
    /// RC RDMA READ response last (`IB_OPCODE_RC_RDMA_READ_RESPONSE_LAST`).
    @inlinable public static var rcReadResponseLast: Opcode { Opcode(rawValue: 0x0F) }
    /// RC RDMA READ response only (`IB_OPCODE_RC_RDMA_READ_RESPONSE_ONLY`).
    @inlinable public static var rcReadResponseOnly: Opcode { Opcode(rawValue: 0x10) }
    /// RC acknowledge (`IB_OPCODE_RC_ACKNOWLEDGE`).
    @inlinable public static var rcAcknowledge: Opcode { Opcode(rawValue: 0x11) }
    /// RC ATOMIC acknowledge (`IB_OPCODE_RC_ATOMIC_ACKNOWLEDGE`).
    @inlinable public static var rcAtomicAcknowledge: Opcode { Opcode(rawValue: 0x12) }
    /// RC compare and swap (`IB_OPCODE_RC_COMPARE_SWAP`).
    @inlinable public static var rcCompareAndSwap: Opcode { Opcode(rawValue: 0x13) }
    /// RC fetch and add (`IB_OPCODE_RC_FETCH_ADD`).
    @inlinable public static var rcFetchAndAdd: Opcode { Opcode(rawValue: 0x14) }
    /// RC SEND last with invalidate (`IB_OPCODE_RC_SEND_LAST_WITH_INVALIDATE`).
    @inlinable public static var rcSendLastWithInvalidate: Opcode { Opcode(rawValue: 0x16) }
    /// RC SEND only with invalidate (`IB_OPCODE_RC_SEND_ONLY_WITH_INVALIDATE`).
    @inlinable public static var rcSendOnlyWithInvalidate: Opcode { Opcode(rawValue: 0x17) }
    /// RC FLUSH (`IB_OPCODE_RC_FLUSH`).
    @inlinable public static var rcFlush: Opcode { Opcode(rawValue: 0x1C) }
    /// RC ATOMIC WRITE (`IB_OPCODE_RC_ATOMIC_WRITE`).
    @inlinable public static var rcAtomicWrite: Opcode { Opcode(rawValue: 0x1D) }
    /// UC SEND first (`IB_OPCODE_UC_SEND_FIRST`).
    @inlinable public static var ucSendFirst: Opcode { Opcode(rawValue: 0x20) }
    /// UC SEND middle (`IB_OPCODE_UC_SEND_MIDDLE`).
    @inlinable public static var ucSendMiddle: Opcode { Opcode(rawValue: 0x21) }
    /// UC SEND last (`IB_OPCODE_UC_SEND_LAST`).
    @inlinable public static var ucSendLast: Opcode { Opcode(rawValue: 0x22) }
    /// UC SEND last with immediate (`IB_OPCODE_UC_SEND_LAST_WITH_IMMEDIATE`).
    @inlinable public static var ucSendLastWithImmediate: Opcode { Opcode(rawValue: 0x23) }
    /// UC SEND only (`IB_OPCODE_UC_SEND_ONLY`).
    @inlinable public static var ucSendOnly: Opcode { Opcode(rawValue: 0x24) }
    /// UC SEND only with immediate (`IB_OPCODE_UC_SEND_ONLY_WITH_IMMEDIATE`).
    @inlinable public static var ucSendOnlyWithImmediate: Opcode { Opcode(rawValue: 0x25) }
    /// UC RDMA WRITE first (`IB_OPCODE_UC_RDMA_WRITE_FIRST`).
    @inlinable public static var ucWriteFirst: Opcode { Opcode(rawValue: 0x26) }
    /// UC RDMA WRITE middle (`IB_OPCODE_UC_RDMA_WRITE_MIDDLE`).
    @inlinable public static var ucWriteMiddle: Opcode { Opcode(rawValue: 0x27) }
    /// UC RDMA WRITE last (`IB_OPCODE_UC_RDMA_WRITE_LAST`).
    @inlinable public static var ucWriteLast: Opcode { Opcode(rawValue: 0x28) }
    /// UC RDMA WRITE last with immediate (`IB_OPCODE_UC_RDMA_WRITE_LAST_WITH_IMMEDIATE`).
    @inlinable public static var ucWriteLastWithImmediate: Opcode { Opcode(rawValue: 0x29) }
    /// UC RDMA WRITE only (`IB_OPCODE_UC_RDMA_WRITE_ONLY`).
    @inlinable public static var ucWriteOnly: Opcode { Opcode(rawValue: 0x2A) }
    /// UC RDMA WRITE only with immediate (`IB_OPCODE_UC_RDMA_WRITE_ONLY_WITH_IMMEDIATE`).
    @inlinable public static var ucWriteOnlyWithImmediate: Opcode { Opcode(rawValue: 0x2B) }
    /// UD SEND only (`IB_OPCODE_UD_SEND_ONLY`).
    @inlinable public static var udSendOnly: Opcode { Opcode(rawValue: 0x64) }
    /// UD SEND only with immediate (`IB_OPCODE_UD_SEND_ONLY_WITH_IMMEDIATE`).
    @inlinable public static var udSendOnlyWithImmediate: Opcode { Opcode(rawValue: 0x65) }
    /// CNP, the congestion notification packet (RoCEv2 annex A17.9.3; of the transport service `IB_OPCODE_CNP`).
    @inlinable public static var congestionNotification: Opcode { Opcode(rawValue: 0x81) }
}

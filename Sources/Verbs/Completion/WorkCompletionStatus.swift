extension WorkCompletion {
    /// How a work request ended (IBTA volume 1, 11.6.2; enum ibv_wc_status).
    @frozen public struct Status: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The work request is done.
        @inlinable public static var success: Self { Self(rawValue: 0) }
        /// The message does not fit what was posted, or exceeds the device's limit.
        @inlinable public static var localLengthError: Self { Self(rawValue: 1) }
        /// The work request was inconsistent, as the device found when it ran it.
        @inlinable public static var localQPOperationError: Self { Self(rawValue: 2) }
        /// An end-to-end context failed; not used any more.
        @inlinable public static var localEECOperationError: Self { Self(rawValue: 3) }
        /// A slice lies outside its region, or its lkey is not valid for this.
        @inlinable public static var localProtectionError: Self { Self(rawValue: 4) }
        /// The queue pair was in, or went to, the error state before this was done.
        @inlinable public static var flushed: Self { Self(rawValue: 5) }
        /// Binding a memory window failed.
        @inlinable public static var memoryWindowBindError: Self { Self(rawValue: 6) }
        /// The peer answered with an unexpected packet.
        @inlinable public static var badResponseError: Self { Self(rawValue: 7) }
        /// A protection error in the local buffer during a write with immediate data.
        @inlinable public static var localAccessError: Self { Self(rawValue: 8) }
        /// The peer refused the request: too long, or not supported by its queue pair.
        @inlinable public static var remoteInvalidRequestError: Self { Self(rawValue: 9) }
        /// The peer's memory does not allow the access: rkey, range or permission.
        @inlinable public static var remoteAccessError: Self { Self(rawValue: 10) }
        /// The peer could not complete the operation.
        @inlinable public static var remoteOperationError: Self { Self(rawValue: 11) }
        /// No answer from the peer after all retries.
        @inlinable public static var retryExceeded: Self { Self(rawValue: 12) }
        /// The peer had no receive posted after all RNR retries.
        @inlinable public static var rnrRetryExceeded: Self { Self(rawValue: 13) }
        /// Reliable datagram domain violation; not used any more.
        @inlinable public static var localRDDViolation: Self { Self(rawValue: 14) }
        /// Invalid reliable datagram request; not used any more.
        @inlinable public static var remoteInvalidRDRequest: Self { Self(rawValue: 15) }
        /// The peer aborted the operation.
        @inlinable public static var remoteAborted: Self { Self(rawValue: 16) }
        /// Invalid end-to-end context number; not used any more.
        @inlinable public static var invalidEECN: Self { Self(rawValue: 17) }
        /// Invalid end-to-end context state; not used any more.
        @inlinable public static var invalidEECState: Self { Self(rawValue: 18) }
        /// The device has failed.
        @inlinable public static var fatalError: Self { Self(rawValue: 19) }
        /// The response did not come in time.
        @inlinable public static var responseTimeout: Self { Self(rawValue: 20) }
        /// Something else went wrong.
        @inlinable public static var generalError: Self { Self(rawValue: 21) }
        /// A tag matching operation failed.
        @inlinable public static var tagMatchingError: Self { Self(rawValue: 22) }
        /// A tag matching rendezvous was not done by hardware.
        @inlinable public static var tagMatchingRendezvousIncomplete: Self { Self(rawValue: 23) }

        /// The name in the specification's terms; nil for a number that this package does not know.
        public var name: String? {
            switch rawValue {
            case 0: "SUCCESS"
            case 1: "LOC_LEN_ERR"
            case 2: "LOC_QP_OP_ERR"
            case 3: "LOC_EEC_OP_ERR"
            case 4: "LOC_PROT_ERR"
            case 5: "WR_FLUSH_ERR"
            case 6: "MW_BIND_ERR"
            case 7: "BAD_RESP_ERR"
            case 8: "LOC_ACCESS_ERR"
            case 9: "REM_INV_REQ_ERR"
            case 10: "REM_ACCESS_ERR"
            case 11: "REM_OP_ERR"
            case 12: "RETRY_EXC_ERR"
            case 13: "RNR_RETRY_EXC_ERR"
            case 14: "LOC_RDD_VIOL_ERR"
            case 15: "REM_INV_RD_REQ_ERR"
            case 16: "REM_ABORT_ERR"
            case 17: "INV_EECN_ERR"
            case 18: "INV_EEC_STATE_ERR"
            case 19: "FATAL_ERR"
            case 20: "RESP_TIMEOUT_ERR"
            case 21: "GENERAL_ERR"
            case 22: "TM_ERR"
            case 23: "TM_RNDV_INCOMPLETE"
            default: nil
            }
        }
    }
}

extension WorkCompletion.Status {
    /// What a person can look at when they meet this status; nil where nothing can be said.
    var advice: String? {
        switch self {
        case .success: nil
        case .localLengthError: "post a larger receive, or send a message that fits the device's max_msg_sz"
        case .localQPOperationError:
            "check that the port is up, and the opcode, the inline size and the address handle of the work request"
        case .localProtectionError: "check that the region is still registered and allows local writes"
        case .flushed: "look at the first completion that failed for another reason: the others follow from it"
        case .remoteInvalidRequestError:
            "check that the peer's receive is large enough and that its queue pair allows the operation"
        case .remoteAccessError:
            "check the rkey, the range and the access flags of the peer's region and of its queue pair"
        case .retryExceeded:
            "the peer is gone or not in RTR, the GIDs do not match, or packets are lost: check the address, the GID"
                + " index, the path MTU and the timeout"
        case .rnrRetryExceeded: "the peer posts too few receives; or raise rnr_retry (7 waits for ever)"
        case .fatalError: "close everything that belongs to the device and open it again"
        default: nil
        }
    }
}

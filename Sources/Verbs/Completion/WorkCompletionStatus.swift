import CIBVerbs
import CProviderABI

extension WorkCompletion {
    /// The status of a work completion (IBTA volume 1, 11.6.2; enum ibv_wc_status).
    @frozen public struct Status: OpenEnumeration {
        /// The number in verbs.h.
        public let rawValue: UInt32
        /// The value that stands for that number; every number is accepted.
        @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The work request is done (`IBV_WC_SUCCESS`).
        @inlinable public static var success: Self { Self(rawValue: IBV_WC_SUCCESS.rawValue) }
        /// The message is longer than the posted receive, or exceeds the device's limit (`IBV_WC_LOC_LEN_ERR`).
        @inlinable public static var localLengthError: Self { Self(rawValue: IBV_WC_LOC_LEN_ERR.rawValue) }
        /// The device detected an inconsistency when it executed the work request (`IBV_WC_LOC_QP_OP_ERR`).
        @inlinable public static var localQPOperationError: Self { Self(rawValue: IBV_WC_LOC_QP_OP_ERR.rawValue) }
        /// An end-to-end context failed; not used any more (`IBV_WC_LOC_EEC_OP_ERR`).
        @inlinable public static var localEECOperationError: Self { Self(rawValue: IBV_WC_LOC_EEC_OP_ERR.rawValue) }
        /// An SGE lies outside its region, or its lkey is not valid for the access (`IBV_WC_LOC_PROT_ERR`).
        @inlinable public static var localProtectionError: Self { Self(rawValue: IBV_WC_LOC_PROT_ERR.rawValue) }
        /// The queue pair was in, or moved to, the error state before the request completed (`IBV_WC_WR_FLUSH_ERR`).
        @inlinable public static var flushed: Self { Self(rawValue: IBV_WC_WR_FLUSH_ERR.rawValue) }
        /// Binding a memory window failed (`IBV_WC_MW_BIND_ERR`).
        @inlinable public static var memoryWindowBindError: Self { Self(rawValue: IBV_WC_MW_BIND_ERR.rawValue) }
        /// The peer sent an unexpected response (`IBV_WC_BAD_RESP_ERR`).
        @inlinable public static var badResponseError: Self { Self(rawValue: IBV_WC_BAD_RESP_ERR.rawValue) }
        /// A protection error in the local buffer during a write with immediate data (`IBV_WC_LOC_ACCESS_ERR`).
        @inlinable public static var localAccessError: Self { Self(rawValue: IBV_WC_LOC_ACCESS_ERR.rawValue) }
        /// The peer refused the request: too long, or not supported by its queue pair (`IBV_WC_REM_INV_REQ_ERR`).
        @inlinable public static var remoteInvalidRequestError: Self { Self(rawValue: IBV_WC_REM_INV_REQ_ERR.rawValue) }
        /// The peer's memory does not allow the access: rkey, range or permission (`IBV_WC_REM_ACCESS_ERR`).
        @inlinable public static var remoteAccessError: Self { Self(rawValue: IBV_WC_REM_ACCESS_ERR.rawValue) }
        /// The peer could not complete the operation (`IBV_WC_REM_OP_ERR`).
        @inlinable public static var remoteOperationError: Self { Self(rawValue: IBV_WC_REM_OP_ERR.rawValue) }
        /// No response from the peer after all retries (`IBV_WC_RETRY_EXC_ERR`).
        @inlinable public static var retryExceeded: Self { Self(rawValue: IBV_WC_RETRY_EXC_ERR.rawValue) }
        /// The peer had no receive posted after all RNR retries (`IBV_WC_RNR_RETRY_EXC_ERR`).
        @inlinable public static var rnrRetryExceeded: Self { Self(rawValue: IBV_WC_RNR_RETRY_EXC_ERR.rawValue) }
        /// Reliable datagram domain violation; not used any more (`IBV_WC_LOC_RDD_VIOL_ERR`).
        @inlinable public static var localRDDViolation: Self { Self(rawValue: IBV_WC_LOC_RDD_VIOL_ERR.rawValue) }
        /// Invalid reliable datagram request; not used any more (`IBV_WC_REM_INV_RD_REQ_ERR`).
        @inlinable public static var remoteInvalidRDRequest: Self { Self(rawValue: IBV_WC_REM_INV_RD_REQ_ERR.rawValue) }
        /// The peer aborted the operation (`IBV_WC_REM_ABORT_ERR`).
        @inlinable public static var remoteAborted: Self { Self(rawValue: IBV_WC_REM_ABORT_ERR.rawValue) }
        /// Invalid end-to-end context number; not used any more (`IBV_WC_INV_EECN_ERR`).
        @inlinable public static var invalidEECN: Self { Self(rawValue: IBV_WC_INV_EECN_ERR.rawValue) }
        /// Invalid end-to-end context state; not used any more (`IBV_WC_INV_EEC_STATE_ERR`).
        @inlinable public static var invalidEECState: Self { Self(rawValue: IBV_WC_INV_EEC_STATE_ERR.rawValue) }
        /// The device has failed (`IBV_WC_FATAL_ERR`).
        @inlinable public static var fatalError: Self { Self(rawValue: IBV_WC_FATAL_ERR.rawValue) }
        /// The response did not come in time (`IBV_WC_RESP_TIMEOUT_ERR`).
        @inlinable public static var responseTimeout: Self { Self(rawValue: IBV_WC_RESP_TIMEOUT_ERR.rawValue) }
        /// Another transport error (`IBV_WC_GENERAL_ERR`).
        @inlinable public static var generalError: Self { Self(rawValue: IBV_WC_GENERAL_ERR.rawValue) }
        /// A tag matching operation failed (`IBV_WC_TM_ERR`).
        @inlinable public static var tagMatchingError: Self { Self(rawValue: IBV_WC_TM_ERR.rawValue) }
        /// The hardware did not complete a tag matching rendezvous (`IBV_WC_TM_RNDV_INCOMPLETE`).
        @inlinable public static var tagMatchingRendezvousIncomplete: Self {
            Self(rawValue: IBV_WC_TM_RNDV_INCOMPLETE.rawValue)
        }

        /// The name in verbs.h without `IBV_WC_`; nil for a number that this package does not know. It is used where C
        /// uses `ibv_wc_status_str`.
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
    /// The hint for this status; nil when there is none.
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

import CIBVerbs
import CLinux
import CProviderABI
import ProviderKit
import RoCETransport

// Explanations of errors with more than one possible cause. They name attributes as verbs.h does.

/// Explains and returns EINVAL for a value above a limit of the device. `limitName` is the attribute that reports the
/// limit.
func overLimit(_ name: StaticString, _ value: some BinaryInteger, _ limitName: StaticString, _ limit: Int) -> Int32 {
    var text = MessageText(name)
    text.append(" ")
    text.append(Int(clamping: value))
    text.append(" is above ")
    text.append(limitName)
    text.append(" of the device, ")
    text.append(limit)
    return text.refusal(EINVAL)
}

/// Explains and returns ENOMEM for a device that has as many objects as it supports. It is the only cause here: an
/// allocation that fails ends the program.
func tooMany(_ objects: StaticString, _ limit: Int, _ attribute: StaticString) -> Int32 {
    var text = MessageText()
    text.append(limit)
    text.append(" ")
    text.append(objects)
    text.append(" exist, as many as the device can have (")
    text.append(attribute)
    text.append("): destroy some first, or open the device once more")
    return text.refusal(ENOMEM)
}

/// Explains EINVAL of `resolve`.
func noPath(_ why: StaticString) -> Path? {
    _ = refusal(EINVAL, why)
    return nil
}

/// Explains and returns `error` for an entry of the GID table that is empty or beyond its end.
func noGID(_ index: Int, _ error: Int32 = EINVAL) -> Int32 {
    var text = MessageText(
        index < DeviceLimits.gids ? "GID index " : "the GID table has 32 entries: there is no index ")
    text.append(index)
    if index < DeviceLimits.gids {
        text.append(" is empty: the interface has no address there (any more); list the GIDs again")
    }
    return text.refusal(error)
}

extension QueuePairCapabilities {
    /// Checks the capabilities. Returns 0, or EINVAL with an explanation of the first one above a limit. Those of the
    /// receive queue are ignored where the queue pair has none of its own.
    func refusal(hasReceiveQueue: Bool) -> Int32 {
        let maxWR = Int(Limits.maxWR)
        let maxSGE = Int(Limits.maxSGE)
        if maxSendWR > maxWR { return overLimit("max_send_wr", maxSendWR, "max_qp_wr", maxWR) }
        if hasReceiveQueue && maxReceiveWR > maxWR {
            return overLimit("max_recv_wr", maxReceiveWR, "max_qp_wr", maxWR)
        }
        if maxSendSGE > maxSGE { return overLimit("max_send_sge", maxSendSGE, "max_sge", maxSGE) }
        if hasReceiveQueue && maxReceiveSGE > maxSGE {
            return overLimit("max_recv_sge", maxReceiveSGE, "max_sge", maxSGE)
        }
        if maxInlineData > Limits.maxInlineData {
            return overLimit("max_inline_data", maxInlineData, "the inline limit", Int(Limits.maxInlineData))
        }
        return 0
    }
}

/// Explains and returns EINVAL for a queue pair attribute whose value is out of range. `attribute` has one bit, or none
/// where the cause is another.
func explainRange(_ attribute: AttributeMask, _ wanted: QueuePairAttributes, activeMTU: UInt32) -> Int32 {
    switch attribute {
    case .pathMTU:
        var text = MessageText("path_mtu ")
        text.append(Int(wanted.pathMTU))
        text.append(" is above the port's active_mtu of ")
        text.append(Int(activeMTU))
        text.append(": take a smaller one, or raise the MTU of the network interface")
        return text.refusal(EINVAL)
    case .pkeyIndex: return outOfRange("pkey_index", wanted.pkeyIndex, "must be 0")
    case .port: return outOfRange("port_num", wanted.port, "must be 1")
    case .timeout: return outOfRange("timeout", wanted.timeout, "must be 0 to 31")
    case .retryCount: return outOfRange("retry_cnt", wanted.retryCount, "must be 0 to 7")
    case .rnrRetry: return outOfRange("rnr_retry", wanted.rnrRetry, "must be 0 to 7")
    case .minRNRTimer: return outOfRange("min_rnr_timer", wanted.minRNRTimer, "must be 0 to 31")
    case .maxReadAtomic:
        return overLimit("max_rd_atomic", wanted.maxReadAtomic, "max_qp_init_rd_atom", Int(Limits.maxReadAtomic))
    case .maxDestinationReadAtomic:
        return overLimit(
            "max_dest_rd_atomic", wanted.maxDestinationReadAtomic, "max_qp_rd_atom", Int(Limits.maxReadAtomic))
    case .alternatePath:
        return refusal(EINVAL, "alt_port_num must be 1, alt_pkey_index 0 and alt_timeout 0 to 31")
    case .pathMigration: return refusal(EINVAL, "path_mig_state can be set to REARM and MIGRATED only")
    case .rateLimit:
        return overLimit("rate_limit", wanted.rateLimit, "qp_rate_limit_max", Int(Limits.maxRateLimit))
    case .destinationQPN: return outOfRange("dest_qp_num", wanted.destinationQPN, "has 24 bits")
    default: return EINVAL
    }
}

private func outOfRange(_ name: StaticString, _ value: some BinaryInteger, _ rule: StaticString) -> Int32 {
    var text = MessageText(name)
    text.append(" ")
    text.append(rule)
    text.append(", not ")
    text.append(Int(clamping: value))
    return text.refusal(EINVAL)
}

import CSimulator

// Connections of iWARP devices (iwcm.c of the kernel, and its driver): the kernel negotiates MPA over TCP and moves the
// queue pair itself.

extension sim_cm_message {
    /// A request of an iWARP device: it has no path.
    var isIWARP: Bool { path_mtu == 0 && kind == SIM_CM_REQ.rawValue }
}

extension ConnectionManager {
    func connectIWARP(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param
    ) throws(Refusal) {
        throw Refusal(ENOSYS, "no iWARP device")
    }

    func acceptIWARP(
        _ identifier: Identifier, _ device: Device, _ parameters: rdma_ucm_conn_param?
    ) throws(Refusal) {
        throw Refusal(ENOSYS, "no iWARP device")
    }

    func rejectIWARP(
        _ identifier: Identifier, _ device: Device, _ data: UnsafeRawBufferPointer
    ) throws(Refusal) {
        throw Refusal(ENOSYS, "no iWARP device")
    }

    func disconnectIWARP(_ identifier: Identifier, _ device: Device) throws(Refusal) {
        throw Refusal(ENOSYS, "no iWARP device")
    }

    func endIWARP(_ identifier: Identifier, _ device: Device, _ communication: Identifier.Communication) {}

    func receiveIWARP(_ identifier: Identifier, _ device: Device, _ message: sim_cm_message) {}

    func closedIWARP(_ identifier: Identifier) {}
}

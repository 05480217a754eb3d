import CIBVerbs
import CProviderABI
import CSimulatorABI
import Glibc
import PeerSupport

/// Ports that do not respond: one that never existed, one that is closed while a request is outstanding. UVERBS_SIM
/// names a wire.
func silentPorts() {
    guard let sim, let description = getenv("UVERBS_SIM") else { return check(false, "needs the simulator") }
    let bench = Bench()
    // Another port on the same wire, whose device does not run.
    let other = sim.pointee.create(description)
    check(other > 0, "a second device: \(other)")
    let silent = openSecond()

    // An iWARP port has no LID in its attributes.
    for (lid, isThere) in [(UInt16(77), false), (bench.isIWARP ? 2 : bench.lid + 1, true)] {
        let queue = Queue(bench, IBV_QPT_RC, requests: 8)
        queue.peerPort = lid
        queue.connect(to: 0x101)
        equal(queue.post(IBV_WR_SEND, [bench.sge(0, 100)], id: 9), 0, "posting a send")
        if isThere {
            bench.expectNothing(bench.sends)
            equal(sim.pointee.fail(other), 0, "the other device dies")
        }
        let completion = bench.poll(bench.sends)[0]
        equal(
            completion.status, bench.isIWARP ? IBV_WC_WR_FLUSH_ERR : IBV_WC_RETRY_EXC_ERR,
            "status of a request without a responder")
        equal(completion.wr_id, 9, "request")
        queue.destroy()
    }
    ibv_close_device(silent)
    bench.close()
}

/// Opens the device that was created last, always with libibverbs.
private func openSecond() -> UnsafeMutablePointer<ibv_context> {
    var count: Int32 = 0
    let devices = have(ibv_get_device_list(&count), "the list of devices")
    defer { ibv_free_device_list(devices) }
    equal(count, 2, "devices")
    let isFirst = String(cString: ibv_get_device_name(devices[0])).hasSuffix("_0")
    return have(ibv_open_device(devices[isFirst ? 1 : 0]), "the second device")
}

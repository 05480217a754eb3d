import CFakeRDMACM
import CIBVerbs
import CProviderABI
import CRDMACM
import Glibc
import SystemPackage
import Testing

@testable import ConnectionManager
@testable import ProviderLoader
@testable import Verbs

private typealias Errno = SystemPackage.Errno

/// An errno value that no other call in these tests returns.
private let distinctErrno = Errno(rawValue: EOWNERDEAD)
private let peer = ConnectionAddress("192.0.2.7:7471")!

private func rule(
    _ function: String, octet: Int32 = -1, _ error: Int32 = 0, event: rdma_cm_event_type? = nil, status: Int32 = 0
) {
    fake_rdmacm_rule(function, octet, error, event.map { Int32($0.rawValue) } ?? FAKE_RDMACM_SILENCE, status)
}

private func failure(_ body: () async throws(ConnectionError) -> Void) async -> ConnectionError? {
    do throws(ConnectionError) {
        try await body()
        Issue.record("no error was thrown")
        return nil
    } catch {
        return error
    }
}

/// Expects that the call of librdmacm failed with that errno value. Returns the description.
@discardableResult
private func expect(
    _ error: ConnectionError?, _ call: Verb, _ errno: Errno, at location: SourceLocation = #_sourceLocation
) -> String {
    let text = error.map(\.description) ?? "no error"
    guard case .system(call, errno)? = error?.reason else {
        Issue.record("\(text)", sourceLocation: location)
        return text
    }
    #expect(text.contains("\(call) failed: ") && !text.contains("\n"), sourceLocation: location)
    return text
}

/// A queue pair of the device to which librdmacm binds identifiers.
private final class Endpoint {
    var pair: QueuePair

    init(_ context: Context? = nil) throws {
        let context = try context ?? Device.named("soft0").open()
        pair = try context.makeProtectionDomain().makeQueuePair(
            .reliableConnection, completions: context.makeCompletionQueue(capacity: 16))
    }

    /// A device on which modify_qp to ERR fails with `code`. It is never closed.
    static func failingModify(_ code: Int32) throws -> Context {
        let opened = try ProviderLoader.standard.open("soft0")
        let table = UnsafeMutablePointer<rdma_context_ops>.allocate(capacity: 1)
        table.initialize(to: opened.ops.pointee)
        originalModifyQP = opened.ops.pointee.modify_qp
        modifyError = code
        table.pointee.modify_qp = { pair, attributes, mask in
            attributes!.pointee.qp_state == IBV_QPS_ERR ? modifyError : originalModifyQP!(pair, attributes, mask)
        }
        return Context(
            OpenedDevice(
                description: opened.description, device: opened.device, context: opened.context, ops: table,
                flags: opened.flags, server: opened.server, provider: opened.provider, warnings: [], candidates: []),
            loader: .standard)
    }
}

nonisolated(unsafe) private var originalModifyQP:
    (@convention(c) (UnsafeMutablePointer<ibv_qp>?, UnsafeMutablePointer<ibv_qp_attr>?, Int32) -> Int32)?
nonisolated(unsafe) private var modifyError: Int32 = 0

extension ChannelTests {
    @Suite("Errors of a fake librdmacm")
    final class FakeTests {
        init() {
            fake_rdmacm_begin("soft0")
            rule("rdma_resolve_addr", event: RDMA_CM_EVENT_ADDR_RESOLVED)
            rule("rdma_resolve_route", event: RDMA_CM_EVENT_ROUTE_RESOLVED)
            rule("rdma_connect", event: RDMA_CM_EVENT_CONNECT_RESPONSE)
        }

        deinit { fake_rdmacm_end() }

        private func identifier(_ space: PortSpace = .tcp) throws -> ConnectionIdentifier {
            let identifier = try ConnectionIdentifier(channel: EventChannel(), portSpace: space)
            try identifier.bind(to: peer)
            return identifier
        }

        @Test("The error has the errno value of the function that failed; without one, the description says so")
        func eachFunction() async throws {
            let group = ConnectionAddress("239.1.2.3:0")!
            var options = ConnectionIdentifierOptions()
            options.typeOfService = 8
            let calls: [(Verb, (ConnectionIdentifier) throws(ConnectionError) -> Void)] = [
                ("rdma_bind_addr", { id throws(ConnectionError) in try id.bind(to: peer) }),
                (
                    "rdma_resolve_addr",
                    { id throws(ConnectionError) in try id.resolveAddress(peer, timeout: .seconds(1)) }
                ),
                ("rdma_resolve_route", { id throws(ConnectionError) in try id.resolveRoute(timeout: .seconds(1)) }),
                ("rdma_listen", { id throws(ConnectionError) in try id.listen() }),
                ("rdma_connect", { id throws(ConnectionError) in try id.connect(ConnectionParameters()) }),
                ("rdma_establish", { id throws(ConnectionError) in try id.establish() }),
                ("rdma_accept", { id throws(ConnectionError) in try id.accept(ConnectionParameters()) }),
                ("rdma_reject", { id throws(ConnectionError) in try id.reject(privateData: [1, 2, 3]) }),
                ("rdma_disconnect", { id throws(ConnectionError) in try id.disconnect() }),
                ("rdma_set_option", { id throws(ConnectionError) in try id.set(options) }),
                (
                    "rdma_init_qp_attr",
                    { id throws(ConnectionError) in _ = try id.queuePairAttributes(for: .initialized) }
                ),
                ("rdma_join_multicast", { id throws(ConnectionError) in try id.join(group) }),
                ("rdma_join_multicast_ex", { id throws(ConnectionError) in try id.join(group, isSendOnly: true) }),
                ("rdma_leave_multicast", { id throws(ConnectionError) in try id.leave(group) }),
                ("rdma_migrate_id", { id throws(ConnectionError) in try id.migrate(to: EventChannel()) }),
                (
                    "rdma_create_id",
                    { id throws(ConnectionError) in _ = try ConnectionIdentifier(channel: id.channel) }
                ),
                ("rdma_create_event_channel", { _ throws(ConnectionError) in _ = try EventChannel() }),
                (
                    "rdma_get_cm_event",
                    { id throws(ConnectionError) in _ = try id.channel.nextEvent(timeout: .zero) }
                ),
            ]
            for (name, call) in calls {
                let identifier = try identifier(.udp)
                rule(name.description, distinctErrno.rawValue)
                expect(await failure { () throws(ConnectionError) in try call(identifier) }, name, distinctErrno)
                rule(name.description, FAKE_RDMACM_NO_ERRNO)
                errno = EEXIST
                let error = await failure { () throws(ConnectionError) in try call(identifier) }
                let text = expect(error, name, .ioError)
                #expect(text.contains("failed without an errno value"), "\(text)")
                rule(name.description)
            }
        }

        @Test("The advice depends on the call: a port below 1024, no descriptor left, no route")
        func advice() async throws {
            let identifier = try identifier()
            rule("rdma_bind_addr", EACCES)
            let port = await failure { () throws(ConnectionError) in try identifier.bind(to: peer) }
            let text = expect(port, "rdma_bind_addr", .permissionDenied)
            #expect(text.contains("CAP_NET_BIND_SERVICE") && !text.contains("/dev/infiniband"), "\(text)")

            rule("rdma_create_event_channel", EACCES)
            let node = await failure { () throws(ConnectionError) in _ = try EventChannel() }
            #expect(expect(node, "rdma_create_event_channel", .permissionDenied).contains("may not open /dev/infini"))

            rule("rdma_create_event_channel", EMFILE)
            let full = await failure { () throws(ConnectionError) in _ = try EventChannel() }
            #expect(expect(full, "rdma_create_event_channel", .tooManyOpenFiles).contains("RLIMIT_NOFILE"))
            rule("rdma_create_event_channel")

            rule("rdma_resolve_addr", ENETUNREACH)
            let unreachable = await failure { () throws(ConnectionError) in _ = try await Connector.resolve(peer) }
            #expect(expect(unreachable, "rdma_resolve_addr", .networkUnreachable).contains("ip route get"))

            rule("rdma_resolve_addr", ENOMEM)
            let noMemory = await failure { () throws(ConnectionError) in _ = try await Connector.resolve(peer) }
            let memory = expect(noMemory, "rdma_resolve_addr", .noMemory)
            #expect(memory.contains("no memory is left") && !memory.contains("with that address"), "\(memory)")
        }

        @Test("The status of an event becomes the errno value of its step")
        func events() async throws {
            let parts: [(function: String, rdma_cm_event_type, status: Int32, reason: String)] = [
                ("rdma_resolve_addr", RDMA_CM_EVENT_ADDR_ERROR, -ENODEV, "no way to that address: ENODEV"),
                ("rdma_resolve_addr", RDMA_CM_EVENT_ADDR_ERROR, -EHOSTUNREACH, "no way to that address: EHOSTUNREACH"),
                ("rdma_resolve_addr", RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT, "nothing came within 9.0 seconds"),
                ("rdma_resolve_addr", RDMA_CM_EVENT_ADDR_ERROR, .min, "no way to that address: errno 2147483647"),
                ("rdma_resolve_route", RDMA_CM_EVENT_ROUTE_ERROR, -EINVAL, "no route to that address: EINVAL"),
                ("rdma_connect", RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, "the peer cannot be reached: ETIMEDOUT"),
                ("rdma_connect", RDMA_CM_EVENT_CONNECT_ERROR, -ENOMEM, "the peer cannot be reached: ENOMEM"),
                ("rdma_connect", RDMA_CM_EVENT_REJECTED, 28, "rejected: rejected by the consumer (28)"),
            ]
            for (function, event, status, reason) in parts {
                let endpoint = try Endpoint()
                rule(function, event: event, status: status)
                let error = await failure { () throws(ConnectionError) in
                    let connector = try await Connector.resolve(peer, timeout: .seconds(9))
                    _ = try await connector.connect(endpoint.pair, timeout: .seconds(9))
                }
                let text = error?.description ?? ""
                #expect(text.contains("192.0.2.7:7471: \(reason)"), "\(text)")
                rule("rdma_resolve_addr", event: RDMA_CM_EVENT_ADDR_RESOLVED)
                rule("rdma_resolve_route", event: RDMA_CM_EVENT_ROUTE_RESOLVED)
            }
        }

        @Test("An error while the queue pair is prepared or modified keeps its errno value and its description")
        func moves() async throws {
            let endpoint = try Endpoint()
            let connector = try await Connector.resolve(peer)
            rule("rdma_init_qp_attr", ENOMEM)
            let early = await failure { () throws(ConnectionError) in try connector.prepare(endpoint.pair) }
            let text = expect(early, "rdma_init_qp_attr", .noMemory)
            #expect(text.contains("no memory is left") && !text.contains("no longer there"), "\(text)")
            rule("rdma_init_qp_attr", EINVAL)
            let late = await failure { () throws(ConnectionError) in try connector.prepare(endpoint.pair) }
            #expect(expect(late, "rdma_init_qp_attr", .invalidArgument).contains("no longer there"))
            // A failing rdma_reject does not replace the error.
            rule("rdma_init_qp_attr")
            try connector.prepare(endpoint.pair)
            rule("rdma_init_qp_attr", distinctErrno.rawValue)
            rule("rdma_reject", EIO)
            let error = await failure { () throws(ConnectionError) in _ = try await connector.connect(endpoint.pair) }
            #expect(expect(error, "rdma_init_qp_attr", distinctErrno).hasPrefix("cannot connect to 192.0.2.7:7471: "))
        }

        @Test("An error of rdma_get_cm_event is thrown by the waiting task, with its operation")
        func reading() async throws {
            let endpoint = try Endpoint()
            let connector = try await Connector.resolve(peer)
            rule("rdma_get_cm_event", distinctErrno.rawValue)
            let error = await failure { () throws(ConnectionError) in _ = try await connector.connect(endpoint.pair) }
            #expect(expect(error, "rdma_get_cm_event", distinctErrno).hasPrefix("cannot connect to 192.0.2.7:7471: "))
        }

        @Test("If rdma_disconnect fails, disconnect throws its errno value, not timedOut")
        func disconnection() async throws {
            for (code, errno) in [(EINVAL, Errno.invalidArgument), (EOWNERDEAD, distinctErrno)] {
                let endpoint = try Endpoint()
                let connection = try await Connector.resolve(peer).connect(endpoint.pair)
                rule("rdma_disconnect", code)
                let error = await failure { () throws(ConnectionError) in
                    try await connection.disconnect(timeout: .milliseconds(100))
                }
                expect(error, "rdma_disconnect", errno)
            }
        }

        @Test("If the queue pair cannot be modified to ERR, disconnect throws the errno value, except EIO")
        func failingModify() async throws {
            rule("rdma_disconnect", event: RDMA_CM_EVENT_DISCONNECTED)
            // EIO: the device has failed. The data path reports that, so disconnect succeeds.
            for (code, errno) in [(EOWNERDEAD, distinctErrno), (EIO, nil)] {
                let endpoint = try Endpoint(Endpoint.failingModify(code))
                let connection = try await Connector.resolve(peer).connect(endpoint.pair)
                guard let errno else {
                    try await connection.disconnect()
                    return
                }
                for _ in 0..<2 {
                    let error = await failure { () throws(ConnectionError) in try await connection.disconnect() }
                    guard case .verbs(let cause)? = error?.reason else {
                        Issue.record("\(String(describing: error))")
                        return
                    }
                    #expect(cause.verb == .modifyQP && cause.errno == errno)
                }
            }
        }

        @Test("On iWARP the event moves the queue pair, which carries one connection, and establish is not called")
        func iwarp() async throws {
            fake_rdmacm_use_iwarp()
            rule("rdma_connect", event: RDMA_CM_EVENT_ESTABLISHED)
            rule("rdma_disconnect", event: RDMA_CM_EVENT_DISCONNECTED)
            let endpoint = try Endpoint()
            let connection = try await Connector.resolve(peer).connect(endpoint.pair, privateData: [1, 2])
            #expect(endpoint.pair.lastKnownState == .readyToSend)
            let refused = await failure { () throws(ConnectionError) in try await connection.recycleQueuePair() }
            #expect(refused?.description.contains("make a new queue pair") == true && connection.isConnected)
            try await connection.disconnect()
            #expect(endpoint.pair.lastKnownState == .error)
            #expect(fake_rdmacm_calls("rdma_establish") == 0)
        }

        @Test("On iWARP the errors of rdma_connect are those that adapters report in events")
        func iwarpErrors() async throws {
            fake_rdmacm_use_iwarp()
            let parts: [(code: Int32, event: rdma_cm_event_type?, status: Int32, reason: String)] = [
                (ECONNREFUSED, nil, 0, "rejected: connection refused (-111); no program listens at that TCP port"),
                (ECONNRESET, nil, 0, "rejected: rejected by the consumer, or connection reset (-104)"),
                (EHOSTUNREACH, nil, 0, "the peer cannot be reached: EHOSTUNREACH"),
                (ETIMEDOUT, nil, 0, "the peer cannot be reached: ETIMEDOUT"),
                (ENOMEM, nil, 0, "rdma_connect failed: ENOMEM"),
                (0, RDMA_CM_EVENT_REJECTED, -ECONNRESET, "rejected: rejected by the consumer, or connection reset"),
            ]
            for (code, event, status, reason) in parts {
                rule("rdma_connect", code, event: event, status: status)
                let endpoint = try Endpoint()
                let error = await failure { () throws(ConnectionError) in
                    _ = try await Connector.resolve(peer).connect(endpoint.pair)
                }
                let text = error?.description ?? ""
                #expect(text.contains("192.0.2.7:7471: \(reason)"), "\(text)")
                #expect(endpoint.pair.lastKnownState == .error)
            }
            let endpoint = try Endpoint()
            let tooMuch = await failure { () throws(ConnectionError) in
                let bytes = [UInt8](repeating: 0, count: 252)
                _ = try await Connector.resolve(peer).connect(endpoint.pair, privateData: bytes)
            }
            #expect(tooMuch?.description.contains("a request of iWARP has room for 251") == true)
            let group = await failure { () throws(ConnectionError) in
                _ = try await Connector.resolve(peer, portSpace: .udp).lookUp()
            }
            expect(group, "rdma_connect", .notSupported)
        }

        @Test("On iWARP a time limit and cancellation end rdma_connect, which waits in the kernel")
        func iwarpWaiting() async throws {
            fake_rdmacm_use_iwarp()
            rule("rdma_connect", FAKE_RDMACM_BLOCKS)
            let endpoint = try Endpoint()
            let connector = try await Connector.resolve(peer)
            let late = await failure { () throws(ConnectionError) in
                _ = try await connector.connect(endpoint.pair, timeout: .milliseconds(50))
            }
            guard case .timedOut(.milliseconds(50))? = late?.reason else {
                Issue.record("\(String(describing: late))")
                return
            }
            let task = Task {
                let endpoint = try Endpoint()
                let connector = try await Connector.resolve(peer)
                return await failure { () throws(ConnectionError) in _ = try await connector.connect(endpoint.pair) }
            }
            while fake_rdmacm_calls("rdma_connect") < 2 { try await Task.sleep(for: .milliseconds(1)) }
            task.cancel()
            guard case .cancelled? = try await task.value?.reason else {
                Issue.record("\(String(describing: try await task.value))")
                return
            }
        }

        @Test("A failed accept, and errors while an object is destroyed, are in the log")
        func log() async throws {
            func expectLog(_ text: String) {
                let log = ProviderLoader.messages.map(\.text)
                #expect(log.contains { $0.contains(text) }, "\(log)")
            }
            do {
                rule("rdma_listen", event: RDMA_CM_EVENT_CONNECT_REQUEST)
                let listener = try Listener(on: ConnectionAddress("192.0.2.9:7471")!)
                rule("rdma_create_event_channel", ENFILE)
                let waiting = Task { try await listener.next() }
                while fake_rdmacm_calls("rdma_create_event_channel") < 2 { try await Task.sleep(for: .milliseconds(1)) }
                waiting.cancel()
                #expect(try await waiting.value == nil)
                rule("rdma_create_event_channel")
            }
            expectLog("cannot use rdma_cm: rdma_create_event_channel failed: ENFILE")
            do {
                let identifier = try identifier(.udp)
                try identifier.join(ConnectionAddress("239.1.2.3:0")!)
                rule("rdma_leave_multicast", EADDRNOTAVAIL)
                rule("rdma_destroy_id", distinctErrno.rawValue)
            }
            expectLog("cannot leave 239.1.2.3:0: rdma_leave_multicast failed: EADDRNOTAVAIL")
            expectLog("rdma_destroy_id failed: errno \(EOWNERDEAD)")
        }

        @Test("For a host with several addresses, the description contains the error of each address")
        func severalAddresses() async throws {
            rule("rdma_resolve_addr", octet: 7, event: RDMA_CM_EVENT_ADDR_ERROR, status: -ENODEV)
            rule("rdma_resolve_addr", octet: 8, ENETUNREACH)
            let second = ConnectionAddress("[2001:db8::8]:7471")!
            let error = await failure { () throws(ConnectionError) in
                _ = try await Connector.first(
                    of: [peer, second], within: .seconds(5), "find the way to the host \"x\""
                ) { (address, time) async throws(ConnectionError) in
                    try await Connector.resolve(address, timeout: time)
                }
            }
            let text = error?.description ?? ""
            #expect(
                text.hasPrefix(
                    "cannot find the way to the host \"x\": none of its 2 addresses was resolved: "
                        + "192.0.2.7:7471: no way to that address: ENODEV"), "\(text)")
            #expect(text.contains("; [2001:db8::8]:7471: rdma_resolve_addr failed: ENETUNREACH"), "\(text)")
            #expect(error?.attempts.map(\.address) == [peer, second])
            guard case .addressNotResolved(.operationNotSupportedByDevice)? = error?.reason else {
                Issue.record("\(text)")
                return
            }
            // If no event channel can be created, only the first address is tried.
            rule("rdma_create_event_channel", EMFILE)
            let before = fake_rdmacm_calls("rdma_create_event_channel")
            let full = await failure { () throws(ConnectionError) in
                _ = try await Connector.resolve("localhost", port: 7471)
            }
            expect(full, "rdma_create_event_channel", .tooManyOpenFiles)
            #expect(fake_rdmacm_calls("rdma_create_event_channel") == before + 1)
        }
    }
}

@Suite("The addresses of one host")
struct SeveralAddressesTests {
    private static let addresses = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map { ConnectionAddress($0)! }

    @Test("Each address gets an equal share of the remaining time")
    func shares() async throws {
        var times: [Duration] = []
        let reached = try await Connector.first(of: Self.addresses, within: .seconds(3000), "resolve") {
            (address, time) async throws(ConnectionError) in
            times.append(time)
            if address != Self.addresses[2] { throw ConnectionError(.timedOut(time), operation: "try") }
            return address
        }
        #expect(reached == Self.addresses[2])
        for (time, most) in zip(times, [1000, 1500, 3000]) {
            #expect(time <= .seconds(most) && time > .seconds(most - 300), "\(times)")
        }
    }

    @Test("After a cancellation no further address is tried")
    func cancellation() async {
        var count = 0
        let error = await failure { () throws(ConnectionError) in
            try await Connector.first(of: Self.addresses, within: .seconds(30), "resolve") {
                (_, _) async throws(ConnectionError) in
                count += 1
                throw ConnectionError(count == 1 ? .routeNotResolved(.noRouteToHost) : .cancelled, operation: "try")
            }
        }
        guard case .cancelled? = error?.reason, count == 2 else {
            Issue.record("\(String(describing: error)) after \(count)")
            return
        }
    }

    @Test("Errors of getaddrinfo: an errno value, no name server, an unknown name, a zero byte in the name")
    func resolver() async {
        let full = ConnectionAddress.failure(EAI_SYSTEM, EMFILE, "find the host \"x\"")
        #expect(expect(full, "getaddrinfo", .tooManyOpenFiles).contains("RLIMIT_NOFILE"))
        let odd = ConnectionAddress.failure(EAI_SYSTEM, ENOENT, "find the host \"x\"")
        let text = expect(odd, "getaddrinfo", .noSuchFileOrDirectory)
        #expect(text.contains("/etc/resolv.conf") && !text.contains("modprobe"), "\(text)")
        let silent = ConnectionAddress.failure(EAI_AGAIN, 0, "find the host \"x\"").description
        #expect(silent.contains("no name server responded") && !silent.contains("spelling"), "\(silent)")
        let unknown = ConnectionAddress.failure(EAI_NONAME, 0, "find the host \"x\"").description
        #expect(unknown.contains("spelling"), "\(unknown)")
        let zero = await failure { () throws(ConnectionError) in
            _ = try ConnectionAddress.resolve("127.0.0.1\0.example.com", port: 1)
        }
        #expect(zero?.description.contains("the name contains a zero byte") == true, "\(String(describing: zero))")
    }

    @Test("The advice distinguishes a device that cannot be opened from a device without an address")
    func unopened() {
        let text = ConnectionAdvice.entry("mlx5_0") { () throws(VerbsError) in
            throw VerbsError(.openDevice, errno: .permissionDenied, object: VerbsObject("device", device: "mlx5_0"))
        }
        #expect(text == "mlx5_0 (addresses unknown: ibv_open_device failed with EACCES)")
        #expect(ConnectionAdvice.entry("rxe0") { [] } == "rxe0 (no address)")
    }
}

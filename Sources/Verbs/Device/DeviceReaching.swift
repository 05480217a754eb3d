import ProviderLoader
import SystemPackage

extension Device {
    /// Opens the device by which the peer of a connected TCP socket is reached, such as `fileDescriptor` of a
    /// `Rendezvous`. Both sides call it, each with its own end.
    ///
    /// It is the first of these, and the context's ``Context/addresses()`` begin with the local address of the route:
    /// - for a peer on this host, and for a socket that is not of the Internet family, the device that
    ///   ``openFirst(from:)`` opens;
    /// - a kernel device in whose GID table is the local address of the TCP connection;
    /// - a kernel device with an active InfiniBand port, whose LIDs do not depend on IP addresses;
    /// - a software device of the list that belongs to no network interface and has that address among its GIDs;
    /// - the device of `soft` on the network interface of that address. It needs no setting: waiting for
    ///   peers or connecting to one requests it.
    ///
    /// - Parameters:
    ///   - socket: A connected socket. The call only reads its addresses.
    ///   - loader: The loader that knows the devices.
    /// - Throws: `ENODEV` when there is none, the errno of getpeername(2), or the error with which the best of them
    ///   could not be opened.
    public static func openFirst(
        reaching socket: FileDescriptor, from loader: ProviderLoader = .standard
    ) throws(VerbsError) -> Context {
        let route: Route?
        do throws(Errno) {
            route = try Route(of: socket)
        } catch {
            throw VerbsError(
                .openDevice, errno: error, object: VerbsObject("device", device: ""),
                hint: "the socket to the peer has no addresses: pass a connected socket")
        }
        return try openFirst(along: route, from: loader)
    }

    /// Opens the device that reaches the remote end of `route`. Returns nil when the remote end is on this host.
    ///
    /// - Parameter linkLayer: The link layer of the peer's port; nil when it is unknown.
    package static func openFirst(
        along route: Route?, to linkLayer: LinkLayer? = nil, from loader: ProviderLoader = .standard
    ) throws(VerbsError) -> Context {
        let listed = DeviceList(loader.snapshot())
        guard let route, !route.isWithinHost else { return try openFirst(of: listed) }
        var search = Search(route: route, linkLayer: linkLayer)
        if let context = search.look(at: listed.filter { !$0.isSoftware }) ?? search.infiniBand { return context }
        let software = listed.filter(\.isSoftware) + listed.onRequest
        let isElsewhere = { (device: Device) in device.details.interfaceIndex == 0 }
        if let context = search.look(at: listed.filter { $0.isSoftware && isElsewhere($0) }) { return context }
        let isThere = { (device: Device) in device.details.interfaceIndex == route.interfaceIndex }
        if linkLayer != .infiniBand, let context = search.look(at: software.filter(isThere)) { return context }
        throw search.failure ?? search.notFound
    }

    /// Looks for the device of one end of a route.
    private struct Search {
        let route: Route
        let linkLayer: LinkLayer?
        /// The first device with an active InfiniBand port.
        private(set) var infiniBand: Context?
        /// The error of the first device that could not be opened or queried.
        private(set) var failure: VerbsError?

        init(route: Route, linkLayer: LinkLayer?) {
            self.route = route
            self.linkLayer = linkLayer
        }

        /// The first of the devices that has the local address of the route.
        mutating func look(at devices: [Device]) -> Context? {
            for device in devices {
                do throws(VerbsError) {
                    let context = try device.open(preferring: route.local)
                    let addresses = try context.addresses()
                    // All addresses of an interface with a loopback address are on loopback.
                    let isLoopback = device.isSoftware && addresses.contains(where: \.gid.isLoopback)
                    if linkLayer != .infiniBand, !isLoopback, addresses.contains(where: { $0.gid == route.local }) {
                        return context
                    }
                    if infiniBand == nil, linkLayer != .ethernet,
                        addresses.contains(where: { $0.linkLayer == .infiniBand })
                    {
                        infiniBand = context
                    }
                } catch {
                    failure = failure ?? error
                }
            }
            return nil
        }

        var notFound: VerbsError {
            let reason =
                linkLayer == .infiniBand
                ? "the peer \(route.remote) is on InfiniBand, and no device here has an active InfiniBand port"
                : "no device that reaches other hosts has \(route.local), the address from which \(route.remote) is"
                    + " reached: name the device to use (`verbs devices` lists them), or connect by another address"
            return VerbsError(
                .openDevice, errno: .operationNotSupportedByDevice, object: VerbsObject("device", device: ""),
                hint: reason)
        }
    }
}

import CMProtocol
import CRDMACM
import ProviderLoader
import SoftwareConnections
import SystemPackage
import Verbs

extension SoftwareService {
    /// The service of this process, for the devices of the standard loader.
    static let shared = SoftwareService(
        SoftwareDevices(
            list: {
                let snapshot = ProviderLoader.standard.snapshot()
                return (snapshot.devices.filter { $0.kind == .software }, snapshot.onRequest)
            },
            open: { name throws(Errno) in
                do throws(LoaderError) { return try ProviderLoader.standard.open(name) } catch {
                    throw Errno(rawValue: error.code)
                }
            }))
}

extension GID {
    init(_ gid: PortGID) { self.init(prefix: gid.high, interfaceID: gid.low) }
}

extension PortGID {
    init(_ gid: GID) { self.init(high: gid.prefix, low: gid.interfaceID) }
}

extension ConnectionAddress {
    init(_ address: SocketAddress) {
        self.init(host: GID(address.host), port: address.port, scope: address.scope)
    }
}

extension SocketAddress {
    init(_ address: ConnectionAddress) {
        self.init(host: PortGID(address.host), port: address.port, scope: address.scope)
    }
}

extension SoftwareOptions {
    init(_ options: ConnectionIdentifierOptions) {
        self.init(
            typeOfService: options.typeOfService, isIPv6Only: options.isIPv6Only,
            acknowledgeTimeout: options.acknowledgeTimeout)
    }
}

import Foundation
import SystemPackage
import Testing
import Verbs

@testable import ConnectionManager

/// Suites that create event channels, serialized, because the fake librdmacm replaces it for the whole process.
@Suite(.serialized)
enum ChannelTests {}

/// Whether software devices serve identifiers here.
let kernelHasNoConnectionManager = !FileManager.default.fileExists(atPath: "/dev/infiniband/rdma_cm")

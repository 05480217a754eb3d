import SystemPackage
import Testing
import Verbs

extension FakeTests {
    @Suite("errors contain the verb, the errno, the object and a hint")
    struct Errors {
        @Test("the description is one line with verb, object, errno and hint")
        func description() throws {
            Fake.reset()
            let domain = try Fake.open().makeProtectionDomain()
            Fake.with { $0.failures = ["reg_mr": Errno.noMemory.rawValue] }
            let error = try #require(failure { () throws(VerbsError) in _ = try domain.makeMemoryRegion(byteCount: 1) })
            #expect(error.verb == .regMR && error.errno == .noMemory && error.object.device == "fake0")
            let text = error.description
            #expect(
                text.hasPrefix("ibv_reg_mr failed on protection domain 0x0 of fake0: ENOMEM (Cannot allocate memory); ")
            )
            // A userspace device does not pin memory, so RLIMIT_MEMLOCK does not apply.
            #expect(!text.contains("RLIMIT_MEMLOCK") && text.contains("a limit of the device"))
        }

        @Test("the provider's explanation precedes the general hint, for that one failure only")
        func explanation() throws {
            Fake.reset()
            let domain = try Fake.open().makeProtectionDomain()
            Fake.with {
                $0.failures = ["reg_mr": Errno.noMemory.rawValue]
                $0.explanations = ["reg_mr": (Errno.noMemory.rawValue, "8 regions exist: maxMemoryRegions")]
            }
            func hint() -> String? {
                failure { () throws(VerbsError) in _ = try domain.makeMemoryRegion(byteCount: 1) }?.hint
            }
            #expect(hint() == "8 regions exist: maxMemoryRegions")
            // The explanation of one failure does not apply to the next.
            Fake.with { $0.explanations = [:] }
            #expect(hint()?.contains("a limit of the device") == true)
            // An explanation for another errno value is ignored.
            Fake.with { $0.explanations = ["reg_mr": (Errno.resourceBusy.rawValue, "nonsense")] }
            #expect(hint()?.contains("a limit of the device") == true)
        }

        @Test("the hint for remote write access without local write")
        func access() throws {
            Fake.reset()
            let domain = try Fake.open().makeProtectionDomain()
            Fake.with { $0.failures = ["reg_mr": Errno.invalidArgument.rawValue] }
            let error = failure { () throws(VerbsError) in
                _ = try domain.makeMemoryRegion(byteCount: 1, access: .remoteWrite)
            }
            #expect(error?.hint == "remoteWrite and remoteAtomic need localWrite as well")
        }

        @Test("the hints for transitions with missing or surplus attributes, and for invalid transitions")
        func transitions() throws {
            Fake.reset()
            let context = try Fake.open()
            let queue = try context.makeCompletionQueue(capacity: 1)
            let pair = try context.makeProtectionDomain().makeQueuePair(.reliableConnection, completions: queue)
            Fake.with { $0.failures = ["modify_qp": Errno.invalidArgument.rawValue] }
            func hint(_ change: (inout QueuePair.Attributes) -> Void) -> String? {
                var attributes = QueuePair.Attributes()
                change(&attributes)
                return failure { () throws(VerbsError) in try pair.modify(attributes) }?.hint
            }
            #expect(
                hint { $0.state = .initialized }
                    == "going from RESET to INIT also needs [ACCESS_FLAGS, PKEY_INDEX, PORT]")
            let surplus = hint {
                $0.state = .initialized
                ($0.access, $0.pkeyIndex, $0.port, $0.retryCount) = ([], 0, 1, 7)
            }
            #expect(surplus == "going from RESET to INIT does not take [RETRY_CNT]")
            #expect(hint { $0.state = .readyToSend } == "a queue pair of type RC cannot go from RESET to RTS")
            let value = hint {
                $0.state = .initialized
                ($0.access, $0.pkeyIndex, $0.port) = ([], 99, 1)
            }
            #expect(value?.contains("one of their values is out of range") == true)
        }

        @Test("each verb that the provider does not implement reports EOPNOTSUPP with the provider's name")
        func unsupported() throws {
            Fake.reset()
            let context = try Fake.open("bare0")
            let calls: [(Verb, () throws(VerbsError) -> Void)] = [
                (.queryDevice, { () throws(VerbsError) in _ = try context.attributes() }),
                (.queryPort, { () throws(VerbsError) in _ = try context.port(1) }),
                (.queryGID, { () throws(VerbsError) in _ = try context.gid(port: 1, index: 0) }),
                (.queryGIDTable, { () throws(VerbsError) in _ = try context.gidTable() }),
                (.queryPKey, { () throws(VerbsError) in _ = try context.pkey(port: 1, index: 0) }),
                (.queryRealTimeValues, { () throws(VerbsError) in _ = try context.rawClock() }),
                (.allocPD, { () throws(VerbsError) in _ = try context.makeProtectionDomain() }),
                (.allocTD, { () throws(VerbsError) in _ = try context.makeThreadDomain() }),
                (.allocDM, { () throws(VerbsError) in _ = try context.makeDeviceMemory(byteCount: 1) }),
                (.createCompChannel, { () throws(VerbsError) in _ = try context.makeCompletionChannel() }),
                (.createCQ, { () throws(VerbsError) in _ = try context.makeCompletionQueue(capacity: 1) }),
                (
                    .createCQEx,
                    { () throws(VerbsError) in _ = try context.makeCompletionQueue(capacity: 1, fields: []) }
                ),
                (.openXRCD, { () throws(VerbsError) in _ = try context.openXRCDomain() }),
                (.createCounters, { () throws(VerbsError) in _ = try context.makeCounters() }),
                (.getAsyncEvent, { () throws(VerbsError) in _ = try context.nextEvent(timeout: .zero) }),
            ]
            for (verb, call) in calls {
                let error = failure(call)
                #expect(error?.verb == verb && error?.errno == .notSupported, "\(verb): \(String(describing: error))")
            }
            #expect(failure(calls[1].1)?.hint?.contains("provider fake does not implement") == true)
            #expect(context.supportedVerbs.isEmpty && context.unsupportedVerbs.contains(.createQP))
            #expect(try Fake.open().unsupportedVerbs.isEmpty)
        }

        @Test("errors of a device that fails to open, and of one that does not exist")
        func opening() throws {
            Fake.reset()
            Fake.with { $0.failures = ["open_device": Errno.ioError.rawValue] }
            let refused = failure { () throws(VerbsError) in _ = try Fake.open() }
            #expect(refused?.verb == .openDevice && refused?.object.device == "fake0")
            #expect(refused?.hint?.contains("was told to fail") == true, "\(String(describing: refused))")
            let missing = failure { () throws(VerbsError) in _ = try Device.named("nope", from: Fake.loader) }
            #expect(missing?.errno == .operationNotSupportedByDevice)
            #expect(missing?.hint?.contains("there are: ") == true && missing?.hint?.contains("bare0") == true)
        }

        @Test("SGEs and copies outside the region are refused")
        func bounds() throws {
            Fake.reset()
            let region = try Fake.open().makeProtectionDomain().makeMemoryRegion(byteCount: 16)
            for range in [0..<17, 17..<17, -1..<2] {
                let error = failure { () throws(VerbsError) in _ = try region.sge(range) }
                #expect(
                    error?.errno == .invalidArgument && error?.hint?.contains("outside the region's 16 bytes") == true)
            }
            #expect(try region.sge(16..<16).byteCount == 0)
            #expect(failure { () throws(VerbsError) in _ = try region.copyBytes(10..<17) } != nil)
            let long = [UInt8](repeating: 1, count: 10)
            #expect(failure { () throws(VerbsError) in try region.copyBytes(from: long.span.bytes, at: 7) } != nil)
            #expect(failure { () throws(VerbsError) in try region.copyBytes(from: long.span.bytes, at: -1) } != nil)
            #expect(failure { () throws(VerbsError) in try region.copyBytes(from: long.span.bytes, at: .max) } != nil)
            for offset in [-8, 4, 16] {
                #expect(failure { () throws(VerbsError) in _ = try region.loadAcquiring(at: offset) } != nil)
            }
            try region.storeReleasing(0x0102_0304, at: 8)
            #expect(try region.loadAcquiring(at: 8) == 0x0102_0304)
            #expect(region.bytes.unsafeLoad(fromByteOffset: 8, as: UInt64.self) == 0x0102_0304)
            var bytes = region.mutableBytes
            bytes.storeBytes(of: 9, toByteOffset: 0, as: UInt8.self)
            #expect(try region.copyBytes(0..<1) == [9])
            let sge = try region.sge(4..<12)
            #expect(
                sge.prefix(3).byteCount == 3 && sge.prefix(99).byteCount == 8 && sge.prefix(-1).byteCount == 0)
            #expect(sge.dropFirst(3).address == sge.address + 3 && sge.dropFirst(99).byteCount == 0)
            #expect(
                failure { () throws(VerbsError) in
                    _ = try Fake.open().makeProtectionDomain().makeMemoryRegion(byteCount: 0)
                }?.errno == .invalidArgument)
        }
    }
}

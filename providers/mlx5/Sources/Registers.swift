import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

/// The registers of a context, in which doorbells ring: pages of the device that are mapped from its node (UAR).
///
/// A newer kernel gives pages one by one, as objects; an older one has given a number of them with the context, and says
/// with each queue pair which register is its own.
struct Registers: ~Copyable {
    /// Two registers of a page are for send queues.
    private static let perPage = 2
    /// Where in a page they begin.
    private static let firstOffset = 0x800
    /// So many registers have one queue pair each; then so many are shared.
    private static let dedicatedCount = 4
    private static let sharedCount = 12
    /// UARs have 4096 bytes, whatever the size of a page of this machine.
    private static let unit = 4096

    /// A register, who uses it, and which page the kernel calls it.
    private struct Entry {
        let register: BlueFlamePointer
        let page: UInt32
        let isShared: Bool
        var users: Int
    }

    /// A page that is mapped; the object that it belongs to, nil for one that came with the context.
    private struct Page {
        let memory: UnsafeMutableRawPointer
        let handle: UInt32?
    }

    private struct State {
        var entries: Vector<Entry> = .init()
        var pages: Vector<Page> = .init()
        /// Registers that came with the context, at their indices.
        var fixed: Vector<BlueFlamePointer> = .init()
        /// Where the doorbells of completion queues are, and which page that is.
        var completions: (memory: UnsafeMutableRawPointer, page: UInt32)?
    }

    private let lock = Lock()
    private let state: UnsafeMutablePointer<State>
    private let size: UInt32

    /// - Parameters:
    ///   - kernel: the open device.
    ///   - answer: what it has answered.
    init(of kernel: borrowing KernelDevice, _ answer: mlx5_ib_alloc_ucontext_resp) throws(KernelError) {
        size = answer.bf_reg_size
        state = .allocate(capacity: 1)
        state.initialize(to: State())
        let isDynamic = answer.tot_bfregs == 0
        do throws(KernelError) {
            if isDynamic {
                let page = try allocate(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC, kernel)
                state.pointee.completions = (page.memory, page.number)
            } else {
                try mapFixed(kernel, answer)
            }
        } catch {
            release(kernel)
            throw error
        }
    }

    /// Unmaps everything. The kernel gives the pages back with the context.
    borrowing func release(_ kernel: borrowing KernelDevice) {
        for index in 0..<state.pointee.entries.count { state.pointee.entries[index].register.freeObject() }
        for index in 0..<state.pointee.fixed.count { state.pointee.fixed[index].freeObject() }
        for index in 0..<state.pointee.pages.count {
            linux_unmap(state.pointee.pages[index].memory, Int(linux_page_size()))
        }
        state.pointee.entries.free()
        state.pointee.fixed.free()
        state.pointee.pages.free()
        state.deallocate()
    }

    /// Where completion queues ring, and the page that they name to the kernel; nil where that is the first of all.
    var completions: (memory: UnsafeMutableRawPointer, page: UInt32?) {
        borrowing get {
            guard let completions = state.pointee.completions else { return (state.pointee.pages[0].memory, nil) }
            return (completions.memory, completions.page)
        }
    }

    /// Whether the kernel chooses the register of a queue pair.
    var areFixed: Bool { borrowing get { state.pointee.completions == nil } }

    /// The register that the kernel has chosen; nil for an index that it has not given.
    borrowing func fixed(_ index: UInt32) -> BlueFlamePointer? {
        Int(index) < state.pointee.fixed.count ? state.pointee.fixed[Int(index)] : nil
    }

    /// A register for a queue pair, and the page that it names to the kernel.
    /// - Parameter isAlone: nobody else rings there.
    borrowing func take(
        of kernel: borrowing KernelDevice, isAlone: Bool
    ) throws(KernelError) -> (register: BlueFlamePointer, page: UInt32) {
        lock.lock()
        defer { lock.unlock() }
        var shared = 0
        var dedicated = 0
        for index in 0..<state.pointee.entries.count {
            let entry = state.pointee.entries[index]
            if entry.isShared {
                shared += 1
            } else if entry.users == 0 {
                return use(index)
            } else {
                dedicated += 1
            }
        }
        if isAlone || dedicated < Self.dedicatedCount { return use(try more(kernel, isShared: false)) }
        if shared < Self.sharedCount { _ = try more(kernel, isShared: true) }
        return use(leastShared)
    }

    /// Of those that are shared, the first of those with the fewest users.
    private var leastShared: Int {
        borrowing get {
            var least: Int?
            for index in 0..<state.pointee.entries.count where state.pointee.entries[index].isShared {
                let users = state.pointee.entries[index].users
                if least.map({ users < state.pointee.entries[$0].users }) ?? true { least = index }
            }
            return least!
        }
    }

    /// Gives a register back that `take` gave.
    borrowing func giveBack(_ register: BlueFlamePointer) {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<state.pointee.entries.count where state.pointee.entries[index].register == register {
            state.pointee.entries[index].users -= 1
        }
    }

    private borrowing func use(_ index: Int) -> (register: BlueFlamePointer, page: UInt32) {
        state.pointee.entries[index].users += 1
        return (state.pointee.entries[index].register, state.pointee.entries[index].page)
    }

    /// Another page, with registers of that kind: the index of the first.
    private borrowing func more(_ kernel: borrowing KernelDevice, isShared: Bool) throws(KernelError) -> Int {
        // Where nothing can be combined (some virtual machines), a page without it does: then only 8 bytes go there.
        var takesRequests = true
        let page: (memory: UnsafeMutableRawPointer, number: UInt32)
        do throws(KernelError) {
            page = try allocate(MLX5_IB_UAPI_UAR_ALLOC_TYPE_BF, kernel)
        } catch {
            guard error == .notSupported else { throw error }
            takesRequests = false
            page = try allocate(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC, kernel)
        }
        let first = state.pointee.entries.count
        for index in 0..<Self.perPage {
            let register = BlueFlamePointer.make(
                BlueFlame(
                    register: page.memory + Self.firstOffset + index * Int(size), size: size / 2,
                    takesRequests: takesRequests, isShared: isShared))
            state.pointee.entries.append(
                Entry(register: register, page: page.number, isShared: isShared, users: 0))
        }
        return first
    }

    /// A page as an object of the kernel's.
    private borrowing func allocate(
        _ type: mlx5_ib_uapi_uar_alloc_type, _ kernel: borrowing KernelDevice
    ) throws(KernelError) -> (memory: UnsafeMutableRawPointer, number: UInt32) {
        var method = Method(MLX5_IB_OBJECT_UAR, MLX5_IB_METHOD_UAR_OBJ_ALLOC)
        let handle = method.newHandle(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE)
        method.constant(MLX5_IB_ATTR_UAR_OBJ_ALLOC_TYPE, UInt64(type.rawValue))
        let offset = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, UInt64.self)
        let length = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, UInt32.self)
        let number = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, UInt32.self)
        try kernel.call(&method)
        guard Int(method[length]) == Int(linux_page_size()) else { throw KernelError(rawValue: EPROTO) }
        let memory = try map(method[offset], kernel)
        state.pointee.pages.append(Page(memory: memory, handle: method[handle]))
        return (memory, method[number])
    }

    private borrowing func map(
        _ offset: UInt64, _ kernel: borrowing KernelDevice
    ) throws(KernelError) -> UnsafeMutableRawPointer {
        guard let memory = linux_map_registers(kernel.descriptor, offset, Int(linux_page_size())) else {
            throw KernelError(rawValue: linux_errno())
        }
        return memory
    }

    /// The pages that came with the context.
    private borrowing func mapFixed(
        _ kernel: borrowing KernelDevice, _ answer: mlx5_ib_alloc_ucontext_resp
    ) throws(KernelError) {
        let perSystemPage = max(1, Int(answer.num_uars_per_page))
        let pageCount = Int(answer.tot_bfregs) / (perSystemPage * Self.perPage)
        guard pageCount > 0, pageCount <= 512, perSystemPage * Self.unit <= Int(linux_page_size()) else {
            throw KernelError(rawValue: EPROTO)
        }
        for index in 0..<pageCount {
            // The index and, from bit 8 on, the kind of mapping: 0, combining.
            let memory = try map(UInt64(index) * UInt64(linux_page_size()), kernel)
            state.pointee.pages.append(Page(memory: memory, handle: nil))
            for unit in 0..<perSystemPage {
                // Four of each unit are counted, though send queues use two.
                for place in 0..<4 {
                    // The very first one is for everybody, and takes 8 bytes at one place.
                    let isFirst = state.pointee.fixed.count == 0
                    let offset = unit * Self.unit + Self.firstOffset + min(place, 1) * Int(size)
                    state.pointee.fixed.append(
                        .make(
                            BlueFlame(
                                register: memory + offset, size: isFirst ? 0 : size / 2, takesRequests: !isFirst,
                                isShared: true)))
                }
            }
        }
    }
}

/// A list that grows, which its owner frees.
struct Vector<Element> {
    private var start = UnsafeMutablePointer<Element>.allocate(capacity: 4)
    private(set) var count = 0
    private var capacity = 4

    init() {}

    subscript(index: Int) -> Element {
        get { start[index] }
        nonmutating set { start[index] = newValue }
    }

    mutating func append(_ element: Element) {
        if count == capacity {
            let larger = UnsafeMutablePointer<Element>.allocate(capacity: capacity * 2)
            larger.moveInitialize(from: start, count: count)
            start.deallocate()
            start = larger
            capacity *= 2
        }
        (start + count).initialize(to: element)
        count += 1
    }

    func free() {
        start.deinitialize(count: count)
        start.deallocate()
    }
}

import CIBVerbs
import CKernelABI
import CLinux
import KernelVerbs
import ProviderKit

/// The UAR pages of a context, mapped from the uverbs device node, and their BlueFlame registers (bfregs).
///
/// UAR pages are dynamic, allocated one by one as objects (`MLX5_IB_OBJECT_UAR`); or static, allocated with the context
/// by older kernels, which choose the bfreg of each queue pair.
struct UARPages: ~Copyable {
    /// The number of bfregs of a UAR that send queues may use.
    private static let bfregsPerUAR = 2
    /// The offset of the first bfreg in a UAR.
    private static let firstBFRegOffset = 0x800
    /// The number of bfregs with one queue pair each, and the number of bfregs that the other queue pairs share.
    private static let dedicatedCount = 4
    private static let sharedCount = 12
    /// The size of a UAR, also on hosts with larger pages.
    private static let uarSize = 4096

    /// A bfreg of a dynamic UAR page, the index of the page, and the number of queue pairs that use it.
    private struct BFReg {
        let blueFlame: BlueFlamePointer
        let uarIndex: UInt32
        let isShared: Bool
        var users: Int
    }

    /// A mapped UAR page. The handle is nil for a static page.
    private struct Page {
        let memory: UnsafeMutableRawPointer
        let handle: UInt32?
    }

    private struct State {
        var dynamicBFRegs: Vector<BFReg> = .init()
        var pages: Vector<Page> = .init()
        /// The bfregs of static UAR pages, by `bfreg_index`.
        var staticBFRegs: Vector<BlueFlamePointer> = .init()
        /// The dynamic UAR page of the CQ doorbell, and its index; nil with static pages.
        var completionQueuePage: (memory: UnsafeMutableRawPointer, index: UInt32)?
    }

    private let lock = Lock()
    private let state: UnsafeMutablePointer<State>
    private let bfRegSize: UInt32

    /// - Parameters:
    ///   - kernel: The open device.
    ///   - response: The kernel's response to the creation of the context.
    init(of kernel: borrowing KernelDevice, _ response: mlx5_ib_alloc_ucontext_resp) throws(KernelError) {
        bfRegSize = response.bf_reg_size
        state = .allocate(capacity: 1)
        state.initialize(to: State())
        let isDynamic = response.tot_bfregs == 0
        do throws(KernelError) {
            if isDynamic {
                let page = try allocatePage(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC, kernel)
                state.pointee.completionQueuePage = (page.memory, page.index)
            } else {
                try mapStaticPages(kernel, response)
            }
        } catch {
            release(kernel)
            throw error
        }
    }

    /// Unmaps all pages. The kernel frees them with the context.
    borrowing func release(_ kernel: borrowing KernelDevice) {
        for index in 0..<state.pointee.dynamicBFRegs.count { state.pointee.dynamicBFRegs[index].blueFlame.freeObject() }
        for index in 0..<state.pointee.staticBFRegs.count { state.pointee.staticBFRegs[index].freeObject() }
        for index in 0..<state.pointee.pages.count {
            linux_unmap(state.pointee.pages[index].memory, Int(linux_page_size()))
        }
        state.pointee.dynamicBFRegs.free()
        state.pointee.staticBFRegs.free()
        state.pointee.pages.free()
        state.deallocate()
    }

    /// The UAR page of the CQ doorbell, and its index for the kernel (`uar_page_index`); nil for the first static page.
    var completionQueuePage: (memory: UnsafeMutableRawPointer, index: UInt32?) {
        borrowing get {
            guard let page = state.pointee.completionQueuePage else { return (state.pointee.pages[0].memory, nil) }
            return (page.memory, page.index)
        }
    }

    /// Whether the UAR pages are static: the kernel chooses the bfreg of a queue pair.
    var areStatic: Bool { borrowing get { state.pointee.completionQueuePage == nil } }

    /// The bfreg that the kernel chose (`bfreg_index`); nil for an invalid index.
    borrowing func staticBFReg(_ index: UInt32) -> BlueFlamePointer? {
        Int(index) < state.pointee.staticBFRegs.count ? state.pointee.staticBFRegs[Int(index)] : nil
    }

    /// Allocates a bfreg for a queue pair. Returns it and the index of its UAR page.
    /// - Parameter isDedicated: Whether the bfreg must not be shared.
    borrowing func allocateBFReg(
        _ kernel: borrowing KernelDevice, isDedicated: Bool
    ) throws(KernelError) -> (blueFlame: BlueFlamePointer, uarIndex: UInt32) {
        lock.lock()
        defer { lock.unlock() }
        var shared = 0
        var dedicated = 0
        for index in 0..<state.pointee.dynamicBFRegs.count {
            let bfreg = state.pointee.dynamicBFRegs[index]
            if bfreg.isShared {
                shared += 1
            } else if bfreg.users == 0 {
                return use(index)
            } else {
                dedicated += 1
            }
        }
        if isDedicated || dedicated < Self.dedicatedCount { return use(try addPage(kernel, isShared: false)) }
        if shared < Self.sharedCount {
            do throws(KernelError) {
                _ = try addPage(kernel, isShared: true)
            } catch {
                // The bfregs that exist can have more users.
                if shared == 0 { throw error }
            }
        }
        return use(leastShared)
    }

    /// The index of the first of the shared bfregs with the fewest users.
    private var leastShared: Int {
        borrowing get {
            var least: Int?
            for index in 0..<state.pointee.dynamicBFRegs.count where state.pointee.dynamicBFRegs[index].isShared {
                let users = state.pointee.dynamicBFRegs[index].users
                if least.map({ users < state.pointee.dynamicBFRegs[$0].users }) ?? true { least = index }
            }
            return least!
        }
    }

    /// Releases a bfreg that `allocateBFReg` returned.
    borrowing func releaseBFReg(_ blueFlame: BlueFlamePointer) {
        lock.lock()
        defer { lock.unlock() }
        for index in 0..<state.pointee.dynamicBFRegs.count
        where state.pointee.dynamicBFRegs[index].blueFlame == blueFlame {
            state.pointee.dynamicBFRegs[index].users -= 1
        }
    }

    private borrowing func use(_ index: Int) -> (blueFlame: BlueFlamePointer, uarIndex: UInt32) {
        state.pointee.dynamicBFRegs[index].users += 1
        return (state.pointee.dynamicBFRegs[index].blueFlame, state.pointee.dynamicBFRegs[index].uarIndex)
    }

    /// Allocates a UAR page with shared or dedicated bfregs. Returns the index of the first.
    private borrowing func addPage(_ kernel: borrowing KernelDevice, isShared: Bool) throws(KernelError) -> Int {
        // Without write combining (some virtual machines) a non-cached page is used, in which doorbells have 8 bytes.
        var allowsBlueFlame = true
        let page: (memory: UnsafeMutableRawPointer, index: UInt32)
        do throws(KernelError) {
            page = try allocatePage(MLX5_IB_UAPI_UAR_ALLOC_TYPE_BF, kernel)
        } catch {
            guard error == .notSupported else { throw error }
            allowsBlueFlame = false
            page = try allocatePage(MLX5_IB_UAPI_UAR_ALLOC_TYPE_NC, kernel)
        }
        let first = state.pointee.dynamicBFRegs.count
        for index in 0..<Self.bfregsPerUAR {
            let blueFlame = BlueFlamePointer.make(
                BlueFlame(
                    register: page.memory + Self.firstBFRegOffset + index * Int(bfRegSize), bufferSize: bfRegSize / 2,
                    allowsBlueFlame: allowsBlueFlame, isShared: isShared))
            state.pointee.dynamicBFRegs.append(
                BFReg(blueFlame: blueFlame, uarIndex: page.index, isShared: isShared, users: 0))
        }
        return first
    }

    /// Allocates a dynamic UAR page (`MLX5_IB_METHOD_UAR_OBJ_ALLOC`) and maps it.
    private borrowing func allocatePage(
        _ type: mlx5_ib_uapi_uar_alloc_type, _ kernel: borrowing KernelDevice
    ) throws(KernelError) -> (memory: UnsafeMutableRawPointer, index: UInt32) {
        var method = Method(MLX5_IB_OBJECT_UAR, MLX5_IB_METHOD_UAR_OBJ_ALLOC)
        let handle = method.newHandle(MLX5_IB_ATTR_UAR_OBJ_ALLOC_HANDLE)
        method.constant(MLX5_IB_ATTR_UAR_OBJ_ALLOC_TYPE, UInt64(type.rawValue))
        let offset = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_OFFSET, UInt64.self)
        let length = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_MMAP_LENGTH, UInt32.self)
        let index = method.output(MLX5_IB_ATTR_UAR_OBJ_ALLOC_PAGE_ID, UInt32.self)
        try kernel.call(&method)
        guard Int(method[length]) == Int(linux_page_size()) else { throw KernelError.unknownLayout() }
        let memory = try map(method[offset], kernel)
        state.pointee.pages.append(Page(memory: memory, handle: method[handle]))
        return (memory, method[index])
    }

    private borrowing func map(
        _ offset: UInt64, _ kernel: borrowing KernelDevice
    ) throws(KernelError) -> UnsafeMutableRawPointer {
        guard let memory = linux_map_registers(kernel.descriptor, offset, Int(linux_page_size())) else {
            throw KernelError(rawValue: linux_errno())
        }
        return memory
    }

    /// Maps the static UAR pages.
    private borrowing func mapStaticPages(
        _ kernel: borrowing KernelDevice, _ response: mlx5_ib_alloc_ucontext_resp
    ) throws(KernelError) {
        let perSystemPage = max(1, Int(response.num_uars_per_page))
        let pageCount = Int(response.tot_bfregs) / (perSystemPage * Self.bfregsPerUAR)
        guard pageCount > 0, pageCount <= 256, perSystemPage * Self.uarSize <= Int(linux_page_size()) else {
            throw KernelError.unknownLayout()
        }
        for index in 0..<pageCount {
            // The page offset has the index in bits 0 to 7 and the command in bits 8 to 15: MLX5_IB_MMAP_REGULAR_PAGE
            // (0), which maps with write combining.
            let memory = try map(UInt64(index) * UInt64(linux_page_size()), kernel)
            state.pointee.pages.append(Page(memory: memory, handle: nil))
            for uar in 0..<perSystemPage {
                // bfreg_index counts four bfregs in each UAR, of which send queues use the first two.
                for bfreg in 0..<4 {
                    // The first bfreg is shared by all and has one 8-byte buffer, without BlueFlame.
                    let isFirst = state.pointee.staticBFRegs.count == 0
                    let offset = uar * Self.uarSize + Self.firstBFRegOffset + min(bfreg, 1) * Int(bfRegSize)
                    state.pointee.staticBFRegs.append(
                        .make(
                            BlueFlame(
                                register: memory + offset, bufferSize: isFirst ? 0 : bfRegSize / 2,
                                allowsBlueFlame: !isFirst,
                                isShared: true)))
                }
            }
        }
    }
}

/// A growing array, which its owner frees.
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

// The fields of the structs of verbs.h by their C names. In a port of a C program, the compiler then names the Swift
// declaration.

extension QueuePair.Attributes {
    @available(*, unavailable, renamed: "state")
    public var qpState: State? {
        get { state }
        set { state = newValue }
    }
    @available(*, unavailable, renamed: "currentState")
    public var curQPState: State? {
        get { currentState }
        set { currentState = newValue }
    }
    @available(*, unavailable, renamed: "migrationState")
    public var pathMigState: MigrationState? {
        get { migrationState }
        set { migrationState = newValue }
    }
    @available(*, unavailable, renamed: "destinationQPNumber")
    public var destQPNum: UInt32? {
        get { destinationQPNumber }
        set { destinationQPNumber = newValue }
    }
    @available(*, unavailable, renamed: "access")
    public var qpAccessFlags: AccessFlags? {
        get { access }
        set { access = newValue }
    }
    @available(*, unavailable, renamed: "capabilities")
    public var cap: Capabilities? {
        get { capabilities }
        set { capabilities = newValue }
    }
    @available(*, unavailable, renamed: "path")
    public var ahAttr: AddressVector? {
        get { path }
        set { path = newValue }
    }
    @available(*, unavailable, renamed: "alternatePath")
    public var altAHAttr: AlternatePath? {
        get { alternatePath }
        set { alternatePath = newValue }
    }
    @available(*, unavailable, renamed: "notifiesWhenDrained")
    public var enSQDAsyncNotify: Bool? {
        get { notifiesWhenDrained }
        set { notifiesWhenDrained = newValue }
    }
    @available(*, unavailable, renamed: "port")
    public var portNum: UInt8? {
        get { port }
        set { port = newValue }
    }
    @available(*, unavailable, renamed: "retryCount")
    public var retryCnt: UInt8? {
        get { retryCount }
        set { retryCount = newValue }
    }
}

extension WorkCompletion {
    @available(*, unavailable, renamed: "id")
    public var wrID: UInt64 {
        id
    }
    @available(*, unavailable, renamed: "vendorError")
    public var vendorErr: UInt32 {
        vendorError
    }
    @available(*, unavailable, renamed: "byteCount")
    public var byteLen: Int {
        byteCount
    }
    @available(*, unavailable, renamed: "immediate")
    public var immData: UInt32? {
        immediate
    }
    @available(*, unavailable, renamed: "queuePairNumber")
    public var qpNum: UInt32 {
        queuePairNumber
    }
    @available(*, unavailable, renamed: "sourceQueuePairNumber")
    public var srcQP: UInt32 {
        sourceQueuePairNumber
    }
    @available(*, unavailable, renamed: "flags")
    public var wcFlags: Flags {
        flags
    }
    @available(*, unavailable, renamed: "sourceLID")
    public var slid: UInt16 {
        sourceLID
    }
    @available(*, unavailable, renamed: "serviceLevel")
    public var sl: UInt8 {
        serviceLevel
    }
    @available(*, unavailable, renamed: "pathBits")
    public var dlidPathBits: UInt8 {
        pathBits
    }
}

extension ScatterGatherElement {
    @available(*, unavailable, renamed: "address")
    public var addr: UInt64 {
        address
    }
    @available(*, unavailable, renamed: "byteCount")
    public var length: Int {
        byteCount
    }
}

extension SharedReceiveQueue.Attributes {
    @available(*, unavailable, renamed: "limit")
    public var srqLimit: UInt32 {
        get { limit }
        set { limit = newValue }
    }
}

extension QueuePair.Capabilities {
    @available(*, unavailable, renamed: "maxReceiveWR")
    public var maxRecvWR: UInt32 {
        get { maxReceiveWR }
        set { maxReceiveWR = newValue }
    }
    @available(*, unavailable, renamed: "maxReceiveSGE")
    public var maxRecvSGE: UInt32 {
        get { maxReceiveSGE }
        set { maxReceiveSGE = newValue }
    }
}

extension RemoteMemory {
    @available(*, unavailable, renamed: "address")
    public var remoteAddr: UInt64 {
        address
    }
}

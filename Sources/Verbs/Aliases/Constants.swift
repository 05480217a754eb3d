// The constants of verbs.h by their C names. In a port of a C program, the compiler then names the Swift
// declaration.

extension AccessFlags {
    // IBV_ACCESS_MW_BIND
    @available(*, unavailable, renamed: "memoryWindowBind")
    public static var mwBind: Self { .memoryWindowBind }
}

extension CompletionQueue.Fields {
    // IBV_WC_EX_WITH_BYTE_LEN
    @available(*, unavailable, renamed: "byteCount")
    public static var withByteLen: Self { .byteCount }
    // IBV_WC_EX_WITH_IMM
    @available(*, unavailable, renamed: "immediate")
    public static var withImm: Self { .immediate }
    // IBV_WC_EX_WITH_QP_NUM
    @available(*, unavailable, renamed: "queuePairNumber")
    public static var withQPNum: Self { .queuePairNumber }
    // IBV_WC_EX_WITH_SRC_QP
    @available(*, unavailable, renamed: "sourceQueuePair")
    public static var withSrcQP: Self { .sourceQueuePair }
    // IBV_WC_EX_WITH_SLID
    @available(*, unavailable, renamed: "sourceLID")
    public static var withSlid: Self { .sourceLID }
    // IBV_WC_EX_WITH_SL
    @available(*, unavailable, renamed: "serviceLevel")
    public static var withSL: Self { .serviceLevel }
    // IBV_WC_EX_WITH_DLID_PATH_BITS
    @available(*, unavailable, renamed: "pathBits")
    public static var withDlidPathBits: Self { .pathBits }
    // IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
    @available(*, unavailable, renamed: "timestamp")
    public static var withCompletionTimestamp: Self { .timestamp }
    // IBV_WC_EX_WITH_CVLAN
    @available(*, unavailable, renamed: "vlan")
    public static var withCvlan: Self { .vlan }
    // IBV_WC_EX_WITH_FLOW_TAG
    @available(*, unavailable, renamed: "flowTag")
    public static var withFlowTag: Self { .flowTag }
    // IBV_WC_EX_WITH_TM_INFO
    @available(*, unavailable, renamed: "tagMatching")
    public static var withTMInfo: Self { .tagMatching }
    // IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK
    @available(*, unavailable, renamed: "wallClock")
    public static var withCompletionTimestampWallclock: Self { .wallClock }
    // IBV_WC_STANDARD_FLAGS
    @available(*, unavailable, renamed: "standard")
    public static var standardFlags: Self { .standard }
}

extension DeviceAttributes.AtomicCapability {
    // IBV_ATOMIC_HCA
    @available(*, unavailable, renamed: "device")
    public static var hca: Self { .device }
    // IBV_ATOMIC_GLOB
    @available(*, unavailable, renamed: "global")
    public static var glob: Self { .global }
}

extension DeviceAttributes.Capabilities {
    // IBV_DEVICE_RESIZE_MAX_WR
    @available(*, unavailable, renamed: "resizeMaxWorkRequests")
    public static var resizeMaxWr: Self { .resizeMaxWorkRequests }
    // IBV_DEVICE_BAD_PKEY_CNTR
    @available(*, unavailable, renamed: "badPKeyCounter")
    public static var badPKeyCntr: Self { .badPKeyCounter }
    // IBV_DEVICE_BAD_QKEY_CNTR
    @available(*, unavailable, renamed: "badQKeyCounter")
    public static var badQKeyCntr: Self { .badQKeyCounter }
    // IBV_DEVICE_RAW_MULTI
    @available(*, unavailable, renamed: "rawMulticast")
    public static var rawMulti: Self { .rawMulticast }
    // IBV_DEVICE_AUTO_PATH_MIG
    @available(*, unavailable, renamed: "automaticPathMigration")
    public static var autoPathMig: Self { .automaticPathMigration }
    // IBV_DEVICE_CHANGE_PHY_PORT
    @available(*, unavailable, renamed: "changePhysicalPort")
    public static var changePhyPort: Self { .changePhysicalPort }
    // IBV_DEVICE_UD_AV_PORT_ENFORCE
    @available(*, unavailable, renamed: "addressPortEnforced")
    public static var udAVPortEnforce: Self { .addressPortEnforced }
    // IBV_DEVICE_CURR_QP_STATE_MOD
    @available(*, unavailable, renamed: "currentStateModifier")
    public static var currQPStateMod: Self { .currentStateModifier }
    // IBV_DEVICE_SHUTDOWN_PORT
    @available(*, unavailable, renamed: "portShutdown")
    public static var shutdownPort: Self { .portShutdown }
    // IBV_DEVICE_SYS_IMAGE_GUID
    @available(*, unavailable, renamed: "systemImageGUID")
    public static var sysImageGuid: Self { .systemImageGUID }
    // IBV_DEVICE_RC_RNR_NAK_GEN
    @available(*, unavailable, renamed: "rnrNAKGeneration")
    public static var rcRNRNakGen: Self { .rnrNAKGeneration }
    // IBV_DEVICE_SRQ_RESIZE
    @available(*, unavailable, renamed: "sharedReceiveQueueResize")
    public static var srqResize: Self { .sharedReceiveQueueResize }
    // IBV_DEVICE_N_NOTIFY_CQ
    @available(*, unavailable, renamed: "notifyCount")
    public static var nNotifyCQ: Self { .notifyCount }
    // IBV_DEVICE_MEM_WINDOW
    @available(*, unavailable, renamed: "memoryWindows")
    public static var memWindow: Self { .memoryWindows }
    // IBV_DEVICE_UD_IP_CSUM
    @available(*, unavailable, renamed: "unreliableDatagramChecksum")
    public static var udIPCsum: Self { .unreliableDatagramChecksum }
    // IBV_DEVICE_MEM_MGT_EXTENSIONS
    @available(*, unavailable, renamed: "memoryManagementExtensions")
    public static var memMgtExtensions: Self { .memoryManagementExtensions }
    // IBV_DEVICE_MEM_WINDOW_TYPE_2A
    @available(*, unavailable, renamed: "memoryWindows2A")
    public static var memWindowType2a: Self { .memoryWindows2A }
    // IBV_DEVICE_MEM_WINDOW_TYPE_2B
    @available(*, unavailable, renamed: "memoryWindows2B")
    public static var memWindowType2b: Self { .memoryWindows2B }
    // IBV_DEVICE_RC_IP_CSUM
    @available(*, unavailable, renamed: "reliableConnectionChecksum")
    public static var rcIPCsum: Self { .reliableConnectionChecksum }
    // IBV_DEVICE_RAW_IP_CSUM
    @available(*, unavailable, renamed: "rawPacketChecksum")
    public static var rawIPCsum: Self { .rawPacketChecksum }
}

extension DeviceAttributes.OnDemandPaging {
    // IBV_ODP_SUPPORT
    @available(*, unavailable, renamed: "supported")
    public static var support: Self { .supported }
    // IBV_ODP_SUPPORT_IMPLICIT
    @available(*, unavailable, renamed: "implicit")
    public static var supportImplicit: Self { .implicit }
}

extension DeviceAttributes.OnDemandPagingOperations {
    // IBV_ODP_SUPPORT_RECV
    @available(*, unavailable, renamed: "receive")
    public static var recv: Self { .receive }
    // IBV_ODP_SUPPORT_SRQ_RECV
    @available(*, unavailable, renamed: "sharedReceive")
    public static var srqRecv: Self { .sharedReceive }
}

extension DeviceAttributes.RawPacketCapabilities {
    // IBV_RAW_PACKET_CAP_CVLAN_STRIPPING
    @available(*, unavailable, renamed: "vlanStripping")
    public static var cvlanStripping: Self { .vlanStripping }
    // IBV_RAW_PACKET_CAP_IP_CSUM
    @available(*, unavailable, renamed: "ipChecksum")
    public static var ipCsum: Self { .ipChecksum }
}

extension EventType {
    // IBV_EVENT_CQ_ERR
    @available(*, unavailable, renamed: "completionQueueError")
    public static var cqErr: Self { .completionQueueError }
    // IBV_EVENT_QP_FATAL
    @available(*, unavailable, renamed: "queuePairFatal")
    public static var qpFatal: Self { .queuePairFatal }
    // IBV_EVENT_QP_REQ_ERR
    @available(*, unavailable, renamed: "queuePairRequestError")
    public static var qpReqErr: Self { .queuePairRequestError }
    // IBV_EVENT_QP_ACCESS_ERR
    @available(*, unavailable, renamed: "queuePairAccessError")
    public static var qpAccessErr: Self { .queuePairAccessError }
    // IBV_EVENT_COMM_EST
    @available(*, unavailable, renamed: "communicationEstablished")
    public static var commEst: Self { .communicationEstablished }
    // IBV_EVENT_SQ_DRAINED
    @available(*, unavailable, renamed: "sendQueueDrained")
    public static var sqDrained: Self { .sendQueueDrained }
    // IBV_EVENT_PATH_MIG
    @available(*, unavailable, renamed: "pathMigrated")
    public static var pathMig: Self { .pathMigrated }
    // IBV_EVENT_PATH_MIG_ERR
    @available(*, unavailable, renamed: "pathMigrationError")
    public static var pathMigErr: Self { .pathMigrationError }
    // IBV_EVENT_PORT_ERR
    @available(*, unavailable, renamed: "portError")
    public static var portErr: Self { .portError }
    // IBV_EVENT_SM_CHANGE
    @available(*, unavailable, renamed: "subnetManagerChange")
    public static var smChange: Self { .subnetManagerChange }
    // IBV_EVENT_SRQ_ERR
    @available(*, unavailable, renamed: "sharedReceiveQueueError")
    public static var srqErr: Self { .sharedReceiveQueueError }
    // IBV_EVENT_SRQ_LIMIT_REACHED
    @available(*, unavailable, renamed: "sharedReceiveQueueLimitReached")
    public static var srqLimitReached: Self { .sharedReceiveQueueLimitReached }
    // IBV_EVENT_QP_LAST_WQE_REACHED
    @available(*, unavailable, renamed: "lastWorkRequestReached")
    public static var qpLastWqeReached: Self { .lastWorkRequestReached }
    // IBV_EVENT_WQ_FATAL
    @available(*, unavailable, renamed: "workQueueFatal")
    public static var wqFatal: Self { .workQueueFatal }
}

extension Flow.Flags {
    // IBV_FLOW_ATTR_FLAGS_DONT_TRAP
    @available(*, unavailable, renamed: "doNotTrap")
    public static var dontTrap: Self { .doNotTrap }
}

extension FlowAttributeType {
    // IBV_FLOW_ATTR_MC_DEFAULT
    @available(*, unavailable, renamed: "multicastDefault")
    public static var mcDefault: Self { .multicastDefault }
}

extension GIDType {
    // IBV_GID_TYPE_IB
    @available(*, unavailable, renamed: "infiniBand")
    public static var ib: Self { .infiniBand }
}

extension NodeType {
    // IBV_NODE_CA
    @available(*, unavailable, renamed: "channelAdapter")
    public static var ca: Self { .channelAdapter }
}

extension PortState {
    // IBV_PORT_NOP
    @available(*, unavailable, renamed: "noChange")
    public static var nop: Self { .noChange }
}

extension QueuePair.Attributes.Mask {
    // IBV_QP_CUR_STATE
    @available(*, unavailable, renamed: "currentState")
    public static var curState: Self { .currentState }
    // IBV_QP_EN_SQD_ASYNC_NOTIFY
    @available(*, unavailable, renamed: "notifiesWhenDrained")
    public static var enSQDAsyncNotify: Self { .notifiesWhenDrained }
    // IBV_QP_ACCESS_FLAGS
    @available(*, unavailable, renamed: "access")
    public static var accessFlags: Self { .access }
    // IBV_QP_AV
    @available(*, unavailable, renamed: "path")
    public static var av: Self { .path }
    // IBV_QP_RETRY_CNT
    @available(*, unavailable, renamed: "retryCount")
    public static var retryCnt: Self { .retryCount }
    // IBV_QP_MAX_QP_RD_ATOMIC
    @available(*, unavailable, renamed: "maxRdAtomic")
    public static var maxQPRDAtomic: Self { .maxRdAtomic }
    // IBV_QP_ALT_PATH
    @available(*, unavailable, renamed: "alternatePath")
    public static var altPath: Self { .alternatePath }
    // IBV_QP_PATH_MIG_STATE
    @available(*, unavailable, renamed: "migrationState")
    public static var pathMigState: Self { .migrationState }
    // IBV_QP_CAP
    @available(*, unavailable, renamed: "capabilities")
    public static var cap: Self { .capabilities }
    // IBV_QP_DEST_QPN
    @available(*, unavailable, renamed: "destinationQPNumber")
    public static var destQPN: Self { .destinationQPNumber }
}

extension QueuePair.CreationFlags {
    // IBV_QP_CREATE_BLOCK_SELF_MCAST_LB
    @available(*, unavailable, renamed: "blockSelfMulticastLoopback")
    public static var blockSelfMcastLb: Self { .blockSelfMulticastLoopback }
    // IBV_QP_CREATE_CVLAN_STRIPPING
    @available(*, unavailable, renamed: "vlanStripping")
    public static var cvlanStripping: Self { .vlanStripping }
}

extension QueuePair.State {
    // IBV_QPS_RTR
    @available(*, unavailable, renamed: "readyToReceive")
    public static var rtr: Self { .readyToReceive }
    // IBV_QPS_RTS
    @available(*, unavailable, renamed: "readyToSend")
    public static var rts: Self { .readyToSend }
    // IBV_QPS_SQD
    @available(*, unavailable, renamed: "sendQueueDrained")
    public static var sqd: Self { .sendQueueDrained }
    // IBV_QPS_SQE
    @available(*, unavailable, renamed: "sendQueueError")
    public static var sqe: Self { .sendQueueError }
    // IBV_QPS_ERR
    @available(*, unavailable, renamed: "error")
    public static var err: Self { .error }
}

extension QueuePairType {
    // IBV_QPT_RC
    @available(*, unavailable, renamed: "reliableConnection")
    public static var rc: Self { .reliableConnection }
    // IBV_QPT_UC
    @available(*, unavailable, renamed: "unreliableConnection")
    public static var uc: Self { .unreliableConnection }
    // IBV_QPT_UD
    @available(*, unavailable, renamed: "unreliableDatagram")
    public static var ud: Self { .unreliableDatagram }
    // IBV_QPT_XRC_RECV
    @available(*, unavailable, renamed: "xrcReceive")
    public static var xrcRecv: Self { .xrcReceive }
}

extension ReceiveHash.Fields {
    // IBV_RX_HASH_SRC_IPV4
    @available(*, unavailable, renamed: "sourceIPv4")
    public static var srcIPv4: Self { .sourceIPv4 }
    // IBV_RX_HASH_DST_IPV4
    @available(*, unavailable, renamed: "destinationIPv4")
    public static var dstIPv4: Self { .destinationIPv4 }
    // IBV_RX_HASH_SRC_IPV6
    @available(*, unavailable, renamed: "sourceIPv6")
    public static var srcIPv6: Self { .sourceIPv6 }
    // IBV_RX_HASH_DST_IPV6
    @available(*, unavailable, renamed: "destinationIPv6")
    public static var dstIPv6: Self { .destinationIPv6 }
    // IBV_RX_HASH_SRC_PORT_TCP
    @available(*, unavailable, renamed: "sourceTCPPort")
    public static var srcPortTCP: Self { .sourceTCPPort }
    // IBV_RX_HASH_DST_PORT_TCP
    @available(*, unavailable, renamed: "destinationTCPPort")
    public static var dstPortTCP: Self { .destinationTCPPort }
    // IBV_RX_HASH_SRC_PORT_UDP
    @available(*, unavailable, renamed: "sourceUDPPort")
    public static var srcPortUDP: Self { .sourceUDPPort }
    // IBV_RX_HASH_DST_PORT_UDP
    @available(*, unavailable, renamed: "destinationUDPPort")
    public static var dstPortUDP: Self { .destinationUDPPort }
}

extension SendFlags {
    // IBV_SEND_IP_CSUM
    @available(*, unavailable, renamed: "ipChecksum")
    public static var ipCsum: Self { .ipChecksum }
}

extension SendOperation.Opcode {
    // IBV_WR_RDMA_WRITE
    @available(*, unavailable, renamed: "write")
    public static var rdmaWrite: Self { .write }
    // IBV_WR_RDMA_WRITE_WITH_IMM
    @available(*, unavailable, renamed: "writeWithImmediate")
    public static var rdmaWriteWithImm: Self { .writeWithImmediate }
    // IBV_WR_SEND_WITH_IMM
    @available(*, unavailable, renamed: "sendWithImmediate")
    public static var sendWithImm: Self { .sendWithImmediate }
    // IBV_WR_RDMA_READ
    @available(*, unavailable, renamed: "read")
    public static var rdmaRead: Self { .read }
    // IBV_WR_ATOMIC_CMP_AND_SWP
    @available(*, unavailable, renamed: "compareAndSwap")
    public static var atomicCmpAndSwp: Self { .compareAndSwap }
    // IBV_WR_ATOMIC_FETCH_AND_ADD
    @available(*, unavailable, renamed: "fetchAndAdd")
    public static var atomicFetchAndAdd: Self { .fetchAndAdd }
    // IBV_WR_LOCAL_INV
    @available(*, unavailable, renamed: "localInvalidate")
    public static var localInv: Self { .localInvalidate }
    // IBV_WR_BIND_MW
    @available(*, unavailable, renamed: "bindMemoryWindow")
    public static var bindMW: Self { .bindMemoryWindow }
    // IBV_WR_SEND_WITH_INV
    @available(*, unavailable, renamed: "sendWithInvalidate")
    public static var sendWithInv: Self { .sendWithInvalidate }
}

extension TransportType {
    // IBV_TRANSPORT_IB
    @available(*, unavailable, renamed: "infiniBand")
    public static var ib: Self { .infiniBand }
}

extension WorkCompletion.Flags {
    // IBV_WC_GRH
    @available(*, unavailable, renamed: "globalRoute")
    public static var grh: Self { .globalRoute }
    // IBV_WC_WITH_IMM
    @available(*, unavailable, renamed: "immediate")
    public static var withImm: Self { .immediate }
    // IBV_WC_IP_CSUM_OK
    @available(*, unavailable, renamed: "checksumValid")
    public static var ipCsumOk: Self { .checksumValid }
    // IBV_WC_WITH_INV
    @available(*, unavailable, renamed: "invalidated")
    public static var withInv: Self { .invalidated }
    // IBV_WC_TM_SYNC_REQ
    @available(*, unavailable, renamed: "tagSyncRequested")
    public static var tmSyncReq: Self { .tagSyncRequested }
    // IBV_WC_TM_MATCH
    @available(*, unavailable, renamed: "tagMatched")
    public static var tmMatch: Self { .tagMatched }
    // IBV_WC_TM_DATA_VALID
    @available(*, unavailable, renamed: "tagDataValid")
    public static var tmDataValid: Self { .tagDataValid }
}

extension WorkCompletion.Opcode {
    // IBV_WC_RDMA_WRITE
    @available(*, unavailable, renamed: "write")
    public static var rdmaWrite: Self { .write }
    // IBV_WC_RDMA_READ
    @available(*, unavailable, renamed: "read")
    public static var rdmaRead: Self { .read }
    // IBV_WC_COMP_SWAP
    @available(*, unavailable, renamed: "compareAndSwap")
    public static var compSwap: Self { .compareAndSwap }
    // IBV_WC_FETCH_ADD
    @available(*, unavailable, renamed: "fetchAndAdd")
    public static var fetchAdd: Self { .fetchAndAdd }
    // IBV_WC_BIND_MW
    @available(*, unavailable, renamed: "bindMemoryWindow")
    public static var bindMW: Self { .bindMemoryWindow }
    // IBV_WC_LOCAL_INV
    @available(*, unavailable, renamed: "localInvalidate")
    public static var localInv: Self { .localInvalidate }
    // IBV_WC_RECV
    @available(*, unavailable, renamed: "receive")
    public static var recv: Self { .receive }
    // IBV_WC_RECV_RDMA_WITH_IMM
    @available(*, unavailable, renamed: "receiveWriteWithImmediate")
    public static var recvRDMAWithImm: Self { .receiveWriteWithImmediate }
    // IBV_WC_TM_ADD
    @available(*, unavailable, renamed: "tagAdd")
    public static var tmAdd: Self { .tagAdd }
    // IBV_WC_TM_DEL
    @available(*, unavailable, renamed: "tagDelete")
    public static var tmDel: Self { .tagDelete }
    // IBV_WC_TM_SYNC
    @available(*, unavailable, renamed: "tagSync")
    public static var tmSync: Self { .tagSync }
    // IBV_WC_TM_RECV
    @available(*, unavailable, renamed: "tagReceive")
    public static var tmRecv: Self { .tagReceive }
    // IBV_WC_TM_NO_TAG
    @available(*, unavailable, renamed: "tagNone")
    public static var tmNoTag: Self { .tagNone }
}

extension WorkCompletion.Status {
    // IBV_WC_LOC_LEN_ERR
    @available(*, unavailable, renamed: "localLengthError")
    public static var locLenErr: Self { .localLengthError }
    // IBV_WC_LOC_QP_OP_ERR
    @available(*, unavailable, renamed: "localQPOperationError")
    public static var locQPOpErr: Self { .localQPOperationError }
    // IBV_WC_LOC_EEC_OP_ERR
    @available(*, unavailable, renamed: "localEECOperationError")
    public static var locEECOpErr: Self { .localEECOperationError }
    // IBV_WC_LOC_PROT_ERR
    @available(*, unavailable, renamed: "localProtectionError")
    public static var locProtErr: Self { .localProtectionError }
    // IBV_WC_WR_FLUSH_ERR
    @available(*, unavailable, renamed: "flushed")
    public static var wrFlushErr: Self { .flushed }
    // IBV_WC_MW_BIND_ERR
    @available(*, unavailable, renamed: "memoryWindowBindError")
    public static var mwBindErr: Self { .memoryWindowBindError }
    // IBV_WC_BAD_RESP_ERR
    @available(*, unavailable, renamed: "badResponseError")
    public static var badRespErr: Self { .badResponseError }
    // IBV_WC_LOC_ACCESS_ERR
    @available(*, unavailable, renamed: "localAccessError")
    public static var locAccessErr: Self { .localAccessError }
    // IBV_WC_REM_INV_REQ_ERR
    @available(*, unavailable, renamed: "remoteInvalidRequestError")
    public static var remInvReqErr: Self { .remoteInvalidRequestError }
    // IBV_WC_REM_ACCESS_ERR
    @available(*, unavailable, renamed: "remoteAccessError")
    public static var remAccessErr: Self { .remoteAccessError }
    // IBV_WC_REM_OP_ERR
    @available(*, unavailable, renamed: "remoteOperationError")
    public static var remOpErr: Self { .remoteOperationError }
    // IBV_WC_RETRY_EXC_ERR
    @available(*, unavailable, renamed: "retryExceeded")
    public static var retryExcErr: Self { .retryExceeded }
    // IBV_WC_RNR_RETRY_EXC_ERR
    @available(*, unavailable, renamed: "rnrRetryExceeded")
    public static var rnrRetryExcErr: Self { .rnrRetryExceeded }
    // IBV_WC_LOC_RDD_VIOL_ERR
    @available(*, unavailable, renamed: "localRDDViolation")
    public static var locRDDViolErr: Self { .localRDDViolation }
    // IBV_WC_REM_INV_RD_REQ_ERR
    @available(*, unavailable, renamed: "remoteInvalidRDRequest")
    public static var remInvRDReqErr: Self { .remoteInvalidRDRequest }
    // IBV_WC_REM_ABORT_ERR
    @available(*, unavailable, renamed: "remoteAborted")
    public static var remAbortErr: Self { .remoteAborted }
    // IBV_WC_INV_EECN_ERR
    @available(*, unavailable, renamed: "invalidEECN")
    public static var invEecnErr: Self { .invalidEECN }
    // IBV_WC_INV_EEC_STATE_ERR
    @available(*, unavailable, renamed: "invalidEECState")
    public static var invEECStateErr: Self { .invalidEECState }
    // IBV_WC_FATAL_ERR
    @available(*, unavailable, renamed: "fatalError")
    public static var fatalErr: Self { .fatalError }
    // IBV_WC_RESP_TIMEOUT_ERR
    @available(*, unavailable, renamed: "responseTimeout")
    public static var respTimeoutErr: Self { .responseTimeout }
    // IBV_WC_GENERAL_ERR
    @available(*, unavailable, renamed: "generalError")
    public static var generalErr: Self { .generalError }
    // IBV_WC_TM_ERR
    @available(*, unavailable, renamed: "tagMatchingError")
    public static var tmErr: Self { .tagMatchingError }
    // IBV_WC_TM_RNDV_INCOMPLETE
    @available(*, unavailable, renamed: "tagMatchingRendezvousIncomplete")
    public static var tmRndvIncomplete: Self { .tagMatchingRendezvousIncomplete }
}

extension WorkQueue.Flags {
    // IBV_WQ_FLAGS_CVLAN_STRIPPING
    @available(*, unavailable, renamed: "vlanStripping")
    public static var cvlanStripping: Self { .vlanStripping }
}

extension WorkQueue.State {
    // IBV_WQS_RDY
    @available(*, unavailable, renamed: "ready")
    public static var rdy: Self { .ready }
    // IBV_WQS_ERR
    @available(*, unavailable, renamed: "error")
    public static var err: Self { .error }
}

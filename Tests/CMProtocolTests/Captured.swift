/// MADs of the connection manager of Linux 6.1 over rxe, captured between two machines, without the zeroes at the end.
enum Captured {
    static let request = mad(
        """
        01070203000000000000000283c6190400100000000000000419c683000000000000000001061c06505400fffe770001
        00000000000000000000220100000001000000a06c074ca7ffff37f0ffffffff00000000000000000000ffff0a4d0001
        00000000000000000000ffff0a4d00028822900000400098000000000000000000000000000000000000000000000000
        00000000000000000000000000000000000000000040c97d0000000000000000000000000a4d00010000000000000000
        000000000a4d0002
        """)
    static let reply = mad(
        """
        01070203000000000000000283c619040013000000000000e5d1fd600419c683000000000000220000000000b7404600
        010178e0505400fffe770002
        """)
    static let readyToUse = mad(
        """
        01070203000000000000000283c6190400140000000000000419c683e5d1fd60
        """)
    static let disconnectRequest = mad(
        """
        01070203000000000000000283c6190400150000000000000419c683e5d1fd60000022
        """)
    static let disconnectReply = mad(
        """
        01070203000000000000000283c619040016000000000000e5d1fd600419c683
        """)
    static let serviceRequest = mad(
        """
        01070203000000000000000283c6190500170000000000000519c683ffff00000000000001111c060040c50700000000
        00000000000000000a4d00010000000000000000000000000a4d0002
        """)
    static let serviceReply = mad(
        """
        01070203000000000000000283c6190500180000000000000519c68300000000000023000000000001111c0601234567
        """)

    static var all: [[UInt8]] {
        [request, reply, readyToUse, disconnectRequest, disconnectReply, serviceRequest, serviceReply]
    }

    private static func mad(_ hex: String) -> [UInt8] {
        let digits = hex.compactMap(\.hexDigitValue)
        let bytes = stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        return bytes + Array(repeating: 0, count: 256 - bytes.count)
    }
}

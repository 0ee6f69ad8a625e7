//! The error codes of replies, under the names of ZooKeeper's `KeeperException.Code`.

use std::fmt;

macro_rules! error_codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// The error of a reply; zero is success and has no name here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($name,)*
            /// A code of a newer server.
            Other(i32),
        }

        impl ErrorCode {
            /// `None` for zero.
            pub fn from_code(code: i32) -> Option<Self> {
                match code {
                    0 => None,
                    $($code => Some(Self::$name),)*
                    other => Some(Self::Other(other)),
                }
            }

            pub fn code(self) -> i32 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Other(code) => write!(f, "error {code}"),
                }
            }
        }
    };
}

error_codes! {
    SystemError = -1, "system error";
    RuntimeInconsistency = -2, "not done, another operation of the multi failed";
    DataInconsistency = -3, "data inconsistency";
    ConnectionLoss = -4, "connection lost";
    MarshallingError = -5, "request is malformed";
    Unimplemented = -6, "not implemented";
    OperationTimeout = -7, "operation timed out";
    BadArguments = -8, "bad arguments";
    NewConfigNoQuorum = -13, "no quorum of the new configuration";
    ReconfigInProgress = -14, "a reconfiguration is in progress";
    NoNode = -101, "no such znode";
    NoAuth = -102, "not permitted by the ACL";
    BadVersion = -103, "version does not match";
    NoChildrenForEphemerals = -108, "ephemerals cannot have children";
    NodeExists = -110, "znode exists";
    NotEmpty = -111, "znode has children";
    SessionExpired = -112, "session expired";
    InvalidCallback = -113, "invalid callback";
    InvalidAcl = -114, "invalid ACL";
    AuthFailed = -115, "authentication failed";
    SessionMoved = -118, "session moved to another server";
    NotReadOnly = -119, "server is read-only";
    EphemeralOnLocalSession = -120, "ephemeral on a local session";
    NoWatcher = -121, "no such watch";
    RequestTimeout = -122, "request timed out";
    ReconfigDisabled = -123, "reconfiguration is disabled";
    SessionClosedRequireSasl = -124, "session closed, the server requires SASL";
    QuotaExceeded = -125, "quota exceeded";
    ThrottledOp = -127, "throttled, try again later";
}

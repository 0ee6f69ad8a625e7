//! What goes before a message in its frame.

use std::borrow::Cow;

use super::{DecodeError, EncodeError, Message, Reader, api, put};
use crate::kafka::messages::api_key;

/// Version of the request header: 2 where the request has tagged fields, else 1.
///
/// Unknown APIs have 1, so that a broker can read the correlation id of what it refuses.
pub fn header_version(api_key: i16, api_version: i16) -> i16 {
    1 + i16::from(is_flexible(api_key, api_version))
}

/// Version of the response header: 1 where the response has tagged fields, else 0.
///
/// ApiVersions always has 0: the client does not know yet what the broker understands (KIP-511).
pub fn response_header_version(api_key: i16, api_version: i16) -> i16 {
    i16::from(api_key != api_key::API_VERSIONS && is_flexible(api_key, api_version))
}

fn is_flexible(api_key: i16, api_version: i16) -> bool {
    api(api_key).and_then(|api| api.flexible_from).is_some_and(|first| first <= api_version)
}

/// Before every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api_key: i16,
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// How the client calls itself. Its length is never compact, in no version.
    pub client_id: Option<Cow<'a, str>>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header in the version that its own first fields call for.
    ///
    /// # Errors
    ///
    /// If the bytes are too few or the client id is not a string.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut header = Self {
            api_key: r.i16()?,
            api_version: r.i16()?,
            correlation_id: r.i32()?,
            client_id: None,
        };
        header.client_id = r.nullable_string(false)?;
        if header_version(header.api_key, header.api_version) == 2 {
            r.skip_tagged_fields()?;
        }
        Ok(header)
    }

    /// # Errors
    ///
    /// If the client id is longer than 32767 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.api_key.to_be_bytes());
        out.extend_from_slice(&self.api_version.to_be_bytes());
        out.extend_from_slice(&self.correlation_id.to_be_bytes());
        match &self.client_id {
            Some(client_id) => put::string(out, false, client_id, "RequestHeader.client_id")?,
            None => put::null_string(out, false),
        }
        if header_version(self.api_key, self.api_version) == 2 {
            out.push(0);
        }
        Ok(())
    }
}

/// Before every response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// # Errors
    ///
    /// If the bytes are too few.
    pub fn decode(r: &mut Reader<'_>, header_version: i16) -> Result<Self, DecodeError> {
        let header = Self { correlation_id: r.i32()? };
        if header_version >= 1 {
            r.skip_tagged_fields()?;
        }
        Ok(header)
    }

    pub fn encode(self, out: &mut Vec<u8>, header_version: i16) {
        out.extend_from_slice(&self.correlation_id.to_be_bytes());
        if header_version >= 1 {
            out.push(0);
        }
    }
}

/// A whole frame with a request, its length included.
///
/// # Errors
///
/// If the message cannot be said in `header.api_version`.
pub fn request_frame<'a>(
    header: &RequestHeader<'_>,
    message: &impl Message<'a>,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0; 4];
    header.encode(&mut out)?;
    message.encode(&mut out, header.api_version)?;
    set_length(&mut out)?;
    Ok(out)
}

/// A whole frame with the response to `request`, its length included.
///
/// # Errors
///
/// If the message cannot be said in the version of the request.
pub fn response_frame<'a, M: Message<'a>>(
    request: &RequestHeader<'_>,
    message: &M,
) -> Result<Vec<u8>, EncodeError> {
    response_frame_in(request.correlation_id, request.api_version, message)
}

/// As [`response_frame`], in a version of the caller's choice: ApiVersions is answered in version 0
/// when the client's version is not known.
///
/// # Errors
///
/// If the message cannot be said in `version`.
pub fn response_frame_in<'a, M: Message<'a>>(
    correlation_id: i32,
    version: i16,
    message: &M,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0; 4];
    ResponseHeader { correlation_id }
        .encode(&mut out, response_header_version(M::API_KEY, version));
    message.encode(&mut out, version)?;
    set_length(&mut out)?;
    Ok(out)
}

fn set_length(frame: &mut [u8]) -> Result<(), EncodeError> {
    let len = frame.len() - 4;
    let length = i32::try_from(len).map_err(|_| EncodeError::TooLong { field: "frame", len })?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::messages::api_versions_response::ApiVersionsResponse;

    fn check(api_key: i16, api_version: i16, request: i16, response: i16) {
        assert_eq!(
            header_version(api_key, api_version),
            request,
            "request {api_key} v{api_version}"
        );
        let got = response_header_version(api_key, api_version);
        assert_eq!(got, response, "response {api_key} v{api_version}");
    }

    #[test]
    fn header_version_follows_tagged_fields() {
        check(api_key::FETCH, 11, 1, 0);
        check(api_key::FETCH, 12, 2, 1);
        check(api_key::SASL_HANDSHAKE, 1, 1, 0);
        check(api_key::API_VERSIONS, 2, 1, 0);
        check(api_key::API_VERSIONS, 3, 2, 0);
        check(999, 0, 1, 0);
    }

    #[test]
    fn client_id_is_never_compact() {
        let header = RequestHeader {
            api_key: api_key::FETCH,
            api_version: 13,
            correlation_id: 5,
            client_id: Some("me".into()),
        };
        let mut out = Vec::new();
        header.encode(&mut out).unwrap();
        assert_eq!(out, [0, 1, 0, 13, 0, 0, 0, 5, 0, 2, b'm', b'e', 0]);
        let mut r = Reader::new(&out);
        assert_eq!(RequestHeader::decode(&mut r), Ok(header));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn frame_begins_with_its_length() {
        let frame = response_frame_in(7, 0, &ApiVersionsResponse::default()).unwrap();
        assert_eq!(frame, [0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0]);
    }
}

//! Who is at the door: other protocols, recognised by their first bytes.

/// What the first four bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Nothing speaks against a frame's length.
    Kafka,
    Http,
    Tls,
}

const HTTP_METHODS: [&[u8; 4]; 8] =
    [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"PRI "];

pub(crate) fn recognise(first: [u8; 4]) -> Greeting {
    if HTTP_METHODS.contains(&&first) {
        return Greeting::Http;
    }
    // A TLS record of a handshake: type 22, version 3.x. As a length it would be 369 MB.
    if first[0] == 22 && first[1] == 3 {
        return Greeting::Tls;
    }
    Greeting::Kafka
}

/// Answers an HTTP client in its own words.
pub(crate) const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 76\r\n\r\n\
    This port speaks the Kafka protocol. Connect a Kafka client, not a browser.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_recognised() {
        assert_eq!(recognise(*b"GET "), Greeting::Http);
        assert_eq!(recognise([22, 3, 1, 2]), Greeting::Tls);
        assert_eq!(recognise([0, 0, 0, 42]), Greeting::Kafka);
        assert_eq!(
            recognise([0x7f, 0xff, 0xff, 0xff]),
            Greeting::Kafka,
            "too long, but no greeting"
        );
    }

    #[test]
    fn http_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(HTTP_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}

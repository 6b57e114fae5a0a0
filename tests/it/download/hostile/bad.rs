//! Servers that cannot be put up with: every one ends in a clear failure.

use super::*;

pub(super) fn bad() -> Vec<Behaviour> {
    vec![
        behaviour("not found", Fails(Kind::Unreachable, "404"), |_, conn, _| {
            conn.answer("404 Not Found", &[], b"<html>")
        }),
        behaviour("gone", Fails(Kind::Unreachable, "410"), |_, conn, _| conn.answer("410 Gone", &[], b"")),
        behaviour("forbidden", Fails(Kind::Unreachable, "403"), |_, conn, _| {
            conn.answer("403 Forbidden", &[], b"")
        }),
        behaviour("wants a password", Fails(Kind::Unreachable, "credentials"), |_, conn, _| {
            conn.answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=x")], b"")
        }),
        behaviour("not modified", Fails(Kind::Unreachable, "304"), |_, conn, _| {
            conn.head("304 Not Modified", &[])
        }),
        behaviour("no content", Fails(Kind::Unreachable, "204"), |_, conn, _| {
            conn.head("204 No Content", &[])
        }),
        behaviour("a status of its own", Fails(Kind::Unreachable, "777"), |_, conn, _| {
            conn.answer("777 Lucky", &[], b"")
        }),
        behaviour("not implemented", Fails(Kind::Unreachable, "501"), |_, conn, _| {
            conn.answer("501 Not Implemented", &[], b"")
        }),
        behaviour("always busy", Fails(Kind::Unreachable, "503"), |_, conn, _| {
            conn.answer("503 Service Unavailable", &[], b"")
        }),
        behaviour(
            "asks to come back tomorrow",
            Fails(Kind::Unreachable, "wait for 24h"),
            |asked, conn, _| {
                assert_eq!(asked.nth, 0);
                conn.answer("429 Too Many Requests", &[("Retry-After", "86400")], b"")
            },
        ),
        behaviour(
            "asks to come back in the year 9999",
            Fails(Kind::Unreachable, "more than a day"),
            |asked, conn, _| {
                assert_eq!(asked.nth, 0);
                let date = [("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT")];
                conn.answer("503 Service Unavailable", &date, b"")
            },
        ),
        behaviour("always cut, without a tag", Fails(Kind::Unreachable, "cut short"), |_, conn, file| {
            conn.head("200 OK", &[("Content-Length", &length(file))])?;
            conn.raw(&file.body[..HALF])
        }),
        behaviour("always hangs up", Fails(Kind::Unreachable, "/node"), |_, _, _| CUT),
        behaviour("another file", Fails(Kind::Verification, "pins"), |asked, conn, file| {
            assert_eq!(asked.nth, 0);
            conn.answer("200 OK", &[], &vec![b'x'; file.body.len()])
        }),
        behaviour("one bit is wrong", Fails(Kind::Verification, "pins"), |_, conn, file| {
            let mut body = file.body.clone();
            body[HALF] ^= 1;
            conn.answer("200 OK", &[], &body)
        }),
        behaviour("a page for people", Fails(Kind::Verification, "pins"), |_, conn, _| {
            conn.answer("200 OK", &[("Content-Type", "text/html")], b"<html>Please log in</html>")
        }),
        behaviour("an empty file", Fails(Kind::Verification, "pins"), |_, conn, _| {
            conn.answer("200 OK", &[], b"")
        }),
        behaviour("a longer file", Fails(Kind::Verification, "pins"), |_, conn, file| {
            conn.answer("200 OK", &[], &[&file.body[..], b"x"].concat())
        }),
        behaviour(
            "always cut and continued wrongly",
            Fails(Kind::Unreachable, "cut short"),
            |asked, conn, file| {
                let (len, last) = (file.body.len(), file.body.len() - 1);
                match asked.range() {
                    None => file.serve_until(asked, conn, HALF),
                    Some(_) => {
                        rest(conn, &format!("bytes {HALF}-{last}/{len}"), &file.etag, &vec![0; len - HALF])
                    }
                }
            },
        ),
        behaviour("an announced giant", Fails(Kind::BadInput, "download_max_size"), |_, conn, _| {
            conn.head("200 OK", &[("Content-Length", "1099511627776")])?;
            conn.stall()
        }),
        behaviour("the greatest number", Fails(Kind::BadInput, "download_max_size"), |_, conn, _| {
            conn.head("200 OK", &[("Content-Length", "18446744073709551615")])?;
            conn.stall()
        }),
        behaviour("chunks without end", Fails(Kind::BadInput, "more than"), |_, conn, _| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            loop {
                chunked(conn, &[0; 10_000])?;
            }
        }),
        behaviour("bytes without end", Fails(Kind::BadInput, "more than"), |_, conn, _| {
            conn.raw("HTTP/1.0 200 OK\r\n\r\n")?;
            loop {
                conn.raw([0; 10_000])?;
            }
        }),
        behaviour("no number for a length", Fails(Kind::Nonsense, "/node"), |_, conn, file| {
            conn.head("200 OK", &[("Content-Length", "many")])?;
            conn.raw(&file.body)
        }),
        behaviour("a negative length", Fails(Kind::Nonsense, "/node"), |_, conn, file| {
            conn.head("200 OK", &[("Content-Length", "-1")])?;
            conn.raw(&file.body)
        }),
        behaviour("two lengths that differ", Fails(Kind::Nonsense, "content-length"), |_, conn, file| {
            conn.answer("200 OK", &[("Content-Length", "5")], &file.body)
        }),
        behaviour(
            "chunks that are longer than the length",
            Fails(Kind::BadInput, "more than 5"),
            |_, conn, file| {
                conn.head("200 OK", &[("Content-Length", "5"), ("Transfer-Encoding", "chunked")])?;
                chunked(conn, &file.body)?;
                conn.raw("0\r\n\r\n")
            },
        ),
        behaviour("compressed for the way", Fails(Kind::Nonsense, "gzip"), |asked, conn, file| {
            assert_eq!(asked.header("accept-encoding"), Some("identity"));
            conn.answer("200 OK", &[("Content-Encoding", "gzip")], &file.body)
        }),
        behaviour("compressed twice", Fails(Kind::Nonsense, "br"), |_, conn, file| {
            conn.answer("200 OK", &[("Content-Encoding", "gzip, br")], &file.body)
        }),
        behaviour("a part that was not asked for", Fails(Kind::Nonsense, "a part"), |_, conn, file| {
            rest(conn, "bytes 0-9/10", &file.etag, &[0; 10])
        }),
        behaviour("redirects in a circle", Fails(Kind::Nonsense, "5 redirects"), |_, conn, _| {
            conn.answer("302 Found", &[("Location", "/node")], b"")
        }),
        behaviour("redirects to nowhere", Fails(Kind::Nonsense, "nowhere"), |_, conn, _| {
            conn.answer("302 Found", &[], b"")
        }),
        behaviour("redirects to a file of ours", Fails(Kind::Nonsense, "redirect"), |_, conn, _| {
            conn.answer("302 Found", &[("Location", "file:///etc/passwd")], b"")
        }),
        behaviour("redirects to ftp", Fails(Kind::Nonsense, "redirect"), |_, conn, _| {
            conn.answer("301 Moved", &[("Location", "ftp://127.0.0.1/node")], b"")
        }),
        behaviour("redirects to rubbish", Fails(Kind::Nonsense, "redirect"), |_, conn, _| {
            conn.answer("301 Moved", &[("Location", "http://[:/")], b"")
        }),
        behaviour("a head without end", Fails(Kind::Nonsense, "too many headers"), |_, conn, _| {
            conn.raw("HTTP/1.1 200 OK\r\n")?;
            loop {
                conn.raw("X-Header: value\r\n")?;
            }
        }),
        behaviour("one header without end", Fails(Kind::Unreachable, "has no end"), |_, conn, _| {
            conn.raw("HTTP/1.1 200 OK\r\nX-Header: ")?;
            loop {
                conn.raw([b'x'; 1000])?;
            }
        }),
        behaviour("a head of 100 KiB", Fails(Kind::Unreachable, "has no end"), |_, conn, _| {
            conn.answer("200 OK", &[("X-Header", &"x".repeat(100 * 1024))], b"")
        }),
        behaviour("another protocol", Fails(Kind::Nonsense, "/node"), |_, conn, _| {
            conn.raw("SSH-2.0-OpenSSH_9.9\r\n\r\n")
        }),
        behaviour("no head at all", Fails(Kind::Nonsense, "/node"), |_, conn, file| conn.raw(&file.body)),
        behaviour("a status that is no number", Fails(Kind::Nonsense, "/node"), |_, conn, _| {
            conn.raw("HTTP/1.1 abc OK\r\n\r\n")
        }),
        behaviour("zero bytes in the head", Fails(Kind::Nonsense, "/node"), |_, conn, _| {
            conn.raw("HTTP/1.1 200 OK\r\nX-\0: \0\r\n\r\n")
        }),
        behaviour("a chunk of impossible size", Fails(Kind::Unreachable, "/node"), |_, conn, _| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            conn.raw("fffffffffffffffffffff\r\nx\r\n")
        }),
        behaviour("a chunk of negative size", Fails(Kind::Unreachable, "/node"), |_, conn, _| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            conn.raw("-5\r\nxxxxx\r\n")
        }),
        slow(slow_to_begin, "continues without end", Fails(Kind::Unreachable, "/node"), |_, conn, _| {
            loop {
                conn.raw("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
        }),
        slow(slow_to_begin, "always stalls", Fails(Kind::Unreachable, "no answer in time"), |_, conn, _| {
            conn.stall()
        }),
        slow(
            slow_to_go_on,
            "always stalls in the body",
            Fails(Kind::Unreachable, "slower than"),
            |_, conn, file| {
                conn.head("200 OK", &[("Content-Length", &length(file))])?;
                conn.stall()
            },
        ),
    ]
}

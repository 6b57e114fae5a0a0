//! Servers that can be put up with: every one ends in the right file.

use super::*;

pub(super) fn good() -> Vec<Behaviour> {
    vec![
        behaviour("plain", Right(1), |asked, conn, file| file.serve(asked, conn)),
        behaviour("chunked", Right(1), |_, conn, file| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            chunked(conn, &file.body)?;
            conn.raw("0\r\n\r\n")
        }),
        behaviour("chunked with extensions and trailers", Right(1), |_, conn, file| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            conn.raw(format!("{:X};name=value\r\n", file.body.len()))?;
            conn.raw(&file.body)?;
            conn.raw("\r\n0\r\nTrailer: x\r\n\r\n")
        }),
        behaviour("ends by closing", Right(1), |_, conn, file| {
            conn.raw("HTTP/1.0 200 OK\r\n\r\n")?;
            conn.raw(&file.body)
        }),
        behaviour("ends by closing, but too early at first", Right(2), |asked, conn, file| {
            conn.raw("HTTP/1.0 200 OK\r\n\r\n")?;
            conn.raw(&file.body[..if asked.nth == 0 { HALF } else { file.body.len() }])
        }),
        behaviour("odd but allowed head", Right(1), |_, conn, file| {
            conn.raw(format!("HTTP/1.1 200\r\ncontent-LENGTH:{}  \r\nX-Empty:\r\n\r\n", length(file)))?;
            conn.raw(&file.body)
        }),
        behaviour("more bytes than announced", Right(1), |_, conn, file| {
            conn.answer("200 OK", &[], &file.body)?;
            conn.raw("more")
        }),
        behaviour("says identity", Right(1), |_, conn, file| {
            conn.answer("200 OK", &[("Content-Encoding", "identity")], &file.body)
        }),
        behaviour("tells more before", Right(1), |asked, conn, file| {
            conn.raw("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")?;
            file.serve(asked, conn)
        }),
        behaviour("cut in the middle, then the rest", Right(2), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut after the head, then the rest", Right(2), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, 0),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut before the last byte, then the rest", Right(2), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, file.body.len() - 1),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut three times", Right(4), |asked, conn, file| {
            file.serve_until(asked, conn, file.body.len() * (asked.nth + 1) / 4)
        }),
        behaviour("cut, and ranges are not known", Right(2), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            _ => conn.answer("200 OK", &[], &file.body),
        }),
        behaviour("cut, and the tag has changed", Right(2), |asked, conn, file| {
            let older = Content { etag: "\"older\"".to_owned(), ..file.clone() };
            match asked.nth {
                0 => older.serve_until(asked, conn, HALF),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("the file changed under the same tag", Right(3), |asked, conn, file| {
            let older = Content { body: vec![b'o'; file.body.len()], ..file.clone() };
            match asked.nth {
                0 => older.serve_until(asked, conn, HALF),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("cut, and the rest begins too early", Right(3), |asked, conn, file| {
            let len = file.body.len();
            match asked.nth {
                0 => file.serve_until(asked, conn, HALF),
                1 => rest(conn, &format!("bytes 5-{}/{len}", len - 1), &file.etag, &file.body[5..]),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("cut, and the rest is not all of it", Right(3), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            1 => rest(conn, &format!("bytes {HALF}-{HALF}/{}", file.body.len()), &file.etag, b"x"),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut, and the rest is of another size", Right(3), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            1 => rest(conn, &format!("bytes {HALF}-{HALF}/{}", HALF + 1), &file.etag, b"x"),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut, and the rest is of an unknown file", Right(3), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            1 => rest(conn, "bytes", &file.etag, b"x"),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut, and the rest has another tag", Right(3), |asked, conn, file| {
            let (len, last) = (file.body.len(), file.body.len() - 1);
            match asked.nth {
                0 => file.serve_until(asked, conn, HALF),
                1 => rest(conn, &format!("bytes {HALF}-{last}/{len}"), "\"else\"", &file.body[HALF..]),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("cut, and the rest has another length", Right(3), |asked, conn, file| {
            let (len, last) = (file.body.len(), file.body.len() - 1);
            match asked.nth {
                0 => file.serve_until(asked, conn, HALF),
                1 => rest(conn, &format!("bytes {HALF}-{last}/{len}"), &file.etag, &file.body[HALF + 1..]),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("cut, and the rest is wrong", Right(3), |asked, conn, file| {
            let (len, last) = (file.body.len(), file.body.len() - 1);
            match asked.nth {
                0 => file.serve_until(asked, conn, HALF),
                1 => rest(conn, &format!("bytes {HALF}-{last}/{len}"), &file.etag, &vec![0; len - HALF]),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("cut, and then there is no such range", Right(3), |asked, conn, file| match asked.nth {
            0 => file.serve_until(asked, conn, HALF),
            1 => conn.answer("416 Range Not Satisfiable", &[], b""),
            _ => file.serve(asked, conn),
        }),
        behaviour("cut, and the tag is weak", Right(2), |asked, conn, file| {
            assert_eq!(asked.range(), None);
            let cut = if asked.nth == 0 { HALF } else { file.body.len() };
            conn.head("200 OK", &[("Content-Length", &length(file)), ("ETag", "W/\"1\"")])?;
            conn.raw(&file.body[..cut])
        }),
        behaviour("cut, and the tag is none", Right(2), |asked, conn, file| {
            assert_eq!(asked.range(), None);
            let cut = if asked.nth == 0 { HALF } else { file.body.len() };
            conn.head("200 OK", &[("Content-Length", &length(file)), ("ETag", "\"a\"b\"")])?;
            conn.raw(&file.body[..cut])
        }),
        behaviour("cut in the middle of a chunk", Right(2), |asked, conn, file| {
            conn.head("200 OK", &[("Transfer-Encoding", "chunked"), ("ETag", &file.etag)])?;
            if asked.nth == 0 {
                conn.raw("ffff\r\n")?;
                return conn.raw(&file.body[..HALF]);
            }
            chunked(conn, &file.body)?;
            conn.raw("0\r\n\r\n")
        }),
        behaviour("chunks without an end", Right(2), |asked, conn, file| {
            if asked.nth > 0 {
                return file.serve(asked, conn);
            }
            conn.head("200 OK", &[("Transfer-Encoding", "chunked")])?;
            chunked(conn, &file.body)
        }),
        behaviour("hangs up without an answer", Right(2), |asked, conn, file| match asked.nth {
            0 => CUT,
            _ => file.serve(asked, conn),
        }),
        behaviour("hangs up in the head", Right(2), |asked, conn, file| match asked.nth {
            0 => conn.raw("HTTP/1.1 200 OK\r\nContent-Le"),
            _ => file.serve(asked, conn),
        }),
        behaviour("busy, try again at once", Right(2), |asked, conn, file| match asked.nth {
            0 => conn.answer("503 Service Unavailable", &[("Retry-After", "0")], b"busy"),
            _ => file.serve(asked, conn),
        }),
        behaviour("busy until a date that has passed", Right(2), |asked, conn, file| match asked.nth {
            0 => {
                let date = [("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")];
                conn.answer("429 Too Many Requests", &date, b"")
            }
            _ => file.serve(asked, conn),
        }),
        behaviour("busy, and says nonsense about it", Right(2), |asked, conn, file| match asked.nth {
            0 => conn.answer("429 Too Many Requests", &[("Retry-After", "soon")], b""),
            _ => file.serve(asked, conn),
        }),
        behaviour("three different troubles", Right(4), |asked, conn, file| match asked.nth {
            0 => conn.answer("500 Internal Server Error", &[], b"<html>"),
            1 => conn.answer("502 Bad Gateway", &[], b"<html>"),
            2 => conn.answer("504 Gateway Timeout", &[], b"<html>"),
            _ => file.serve(asked, conn),
        }),
        behaviour("redirects five times, also relative", Right(1), |asked, conn, file| {
            match asked.path.as_str() {
                "/node" => conn.answer("301 Moved", &[("Location", "1")], b"moved"),
                "/1" => conn.answer("302 Found", &[("Location", "/2?x=y")], b"moved"),
                "/2?x=y" => conn.answer("303 See Other", &[("Location", "?3")], b""),
                "/2?3" => conn.answer("307 Temporary", &[("Location", "./a/../4#part")], b""),
                "/4" => conn.answer("308 Permanent", &[("Location", "5")], b""),
                _ => file.serve(asked, conn),
            }
        }),
        behaviour("redirects without an end to the body", Right(1), |asked, conn, file| {
            if asked.path == "/there" {
                return file.serve(asked, conn);
            }
            conn.head("302 Found", &[("Location", "/there"), ("Transfer-Encoding", "chunked")])?;
            loop {
                chunked(conn, &[0; 10_000])?;
            }
        }),
        slow(slow_to_begin, "stalls before the answer", Retried, |asked, conn, file| match asked.nth {
            0 => conn.stall(),
            _ => file.serve(asked, conn),
        }),
        slow(slow_to_begin, "stalls in the head", Retried, |asked, conn, file| {
            if asked.nth > 0 {
                return file.serve(asked, conn);
            }
            conn.raw("HTTP/1.1 200 OK\r\nContent-Length: ")?;
            conn.stall()
        }),
        slow(slow_to_go_on, "stalls in the body", Retried, |asked, conn, file| {
            if asked.nth > 0 {
                return file.serve(asked, conn);
            }
            let _ = file.serve_until(asked, conn, HALF);
            conn.stall()
        }),
        slow(slow_to_go_on, "one byte at a time", Retried, |asked, conn, file| {
            if asked.nth > 0 {
                return file.serve(asked, conn);
            }
            conn.head("200 OK", &[("Content-Length", &length(file)), ("ETag", &file.etag)])?;
            for byte in file.body.chunks(1) {
                conn.raw(byte)?;
                conn.dawdle(Duration::from_millis(10))?;
            }
            Ok(())
        }),
        slow(slow_to_begin, "one byte of the head at a time", Retried, |asked, conn, file| {
            if asked.nth > 0 {
                return file.serve(asked, conn);
            }
            conn.raw("HTTP/1.1 200 OK\r\nX-A: ")?;
            loop {
                conn.raw("x")?;
                conn.dawdle(Duration::from_millis(10))?;
            }
        }),
    ]
}

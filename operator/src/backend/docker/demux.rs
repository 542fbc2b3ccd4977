//! The stream of a command without a terminal: what it writes comes in frames, eight bytes of header each.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// Takes the frames apart; a frame of whatever length needs no memory here.
pub(super) struct Demux<R> {
    inner: R,
    with_errors: bool,
    header: [u8; 8],
    have: usize,
    left: usize,
    wanted: bool,
}

impl<R> Demux<R> {
    /// What the command writes to its standard output, and to its standard error `with_errors`.
    pub(super) fn new(inner: R, with_errors: bool) -> Self {
        Self { inner, with_errors, header: [0; 8], have: 0, left: 0, wanted: false }
    }

    fn begin_frame(&mut self) -> io::Result<()> {
        let [kind, _, _, _, a, b, c, d] = self.header;
        if !matches!(kind, 0 | STDOUT | STDERR) {
            return Err(io::Error::other("the engine's stream is not in frames"));
        }
        self.wanted = kind == STDOUT || (kind == STDERR && self.with_errors);
        self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        self.have = 0;
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Demux<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.left == 0 {
                let mut space = ReadBuf::new(this.header.get_mut(this.have..).unwrap_or_default());
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space))?;
                let got = space.filled().len();
                if got == 0 {
                    // An end within a header is an end all the same: there is nothing to lose.
                    return Poll::Ready(Ok(()));
                }
                this.have += got;
                if this.have == this.header.len() {
                    this.begin_frame()?;
                }
                continue;
            }
            if this.wanted {
                let most = this.left.min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
                let got = part.filled().len();
                buf.advance(got);
                this.left -= got;
                return Poll::Ready(Ok(()));
            }
            let mut waste = [0; 1024];
            let most = this.left.min(waste.len());
            let mut space = ReadBuf::new(waste.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space))?;
            let got = space.filled().len();
            if got == 0 {
                return Poll::Ready(Ok(()));
            }
            this.left -= got;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text);
        out
    }

    async fn read(bytes: &[u8], with_errors: bool, step: usize) -> io::Result<Vec<u8>> {
        let (mut to, from) = tokio::io::duplex(step);
        let feed = async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut to, bytes).await;
        };
        let mut out = Vec::new();
        let mut demux = Demux::new(from, with_errors);
        let ((), result) = tokio::join!(feed, demux.read_to_end(&mut out));
        result.map(|_| out)
    }

    #[tokio::test]
    async fn frames_cut_anywhere_give_the_same() {
        let big = vec![b'x'; 5000];
        let all =
            [frame(1, b"one "), frame(2, &big), frame(1, b""), frame(1, b"two"), frame(2, b"!")];
        let bytes = all.concat();
        for step in [1, 3, 8, 9, 1000, 1 << 16] {
            assert_eq!(read(&bytes, false, step).await.unwrap(), b"one two");
            let both = [b"one ".as_slice(), &big, b"two!"].concat();
            assert_eq!(read(&bytes, true, step).await.unwrap(), both);
        }
    }

    #[tokio::test]
    async fn what_is_not_in_frames_is_an_error_and_a_short_end_is_an_end() {
        assert!(read(b"HTTP/1.1 200 OK\r\n", true, 64).await.is_err());
        assert_eq!(read(&frame(1, b"half")[..10], true, 64).await.unwrap(), b"ha");
        assert_eq!(read(&[1, 0, 0], true, 64).await.unwrap(), b"");
    }
}

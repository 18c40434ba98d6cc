use std::{
    cell::Cell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use ports::ring::Doorbell;

use super::*;

/// Both drivers, or the one that works here.
pub(crate) fn drivers() -> Vec<DriverKind> {
    match choose(Driver::Auto, 2).unwrap() {
        DriverKind::Uring => vec![DriverKind::Uring, DriverKind::Epoll],
        DriverKind::Epoll => vec![DriverKind::Epoll],
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn reads_and_writes() {
    for kind in drivers() {
        let (mut peer, ours) = pair();
        let read = run(kind, move || async move {
            let (mut reader, mut writer, handle) = adopt(ours).unwrap();
            assert_eq!(writer.write(Bytes::from_static(b"question")).await.unwrap(), 8);
            let mut asked = [0; 8];
            peer.read_exact(&mut asked).unwrap();
            peer.write_all(b"answer").unwrap();
            let mut buffer = BytesMut::with_capacity(64);
            buffer.extend_from_slice(b"the ");
            let (result, buffer) = reader.read(buffer).await;
            assert_eq!(result.unwrap(), 6);
            handle.shutdown_write();
            assert_eq!(peer.read(&mut asked).unwrap(), 0);
            buffer
        });
        assert_eq!(&read.unwrap()[..], b"the answer");
    }
}

#[test]
fn a_shutdown_ends_a_pending_read() {
    for kind in drivers() {
        let (peer, ours) = pair();
        let result = run(kind, move || async move {
            let (mut reader, _writer, handle) = adopt(ours).unwrap();
            spawn(async move {
                yield_now().await;
                handle.shutdown();
            });
            reader.read(BytesMut::with_capacity(8)).await.0
        });
        assert_eq!(result.unwrap().unwrap(), 0);
        drop(peer);
    }
}

#[test]
fn a_yield_lets_timers_and_tasks_run() {
    for kind in drivers() {
        let yields = run(kind, || async {
            let done = Rc::new(Cell::new(false));
            let flag = Rc::clone(&done);
            spawn(async move {
                sleep(Duration::from_millis(5)).await;
                flag.set(true);
            });
            let mut yields = 0_u64;
            while !done.get() {
                yield_now().await;
                yields += 1;
            }
            yields
        });
        assert!(yields.unwrap() > 0);
    }
}

#[test]
fn a_doorbell_wakes_from_another_thread() {
    for kind in drivers() {
        let here = Doorbell::new();
        let there = Doorbell::new();
        let echo = (Arc::clone(&here), Arc::clone(&there));
        let thread = std::thread::spawn(move || {
            for _ in 0..200 {
                while !matches!(
                    echo.1.poll_rung(&mut std::task::Context::from_waker(std::task::Waker::noop())),
                    std::task::Poll::Ready(())
                ) {
                    std::thread::yield_now();
                }
                echo.0.ring();
            }
        });
        run(kind, move || async move {
            for _ in 0..200 {
                there.ring();
                here.rung().await;
            }
        })
        .unwrap();
        thread.join().unwrap();
    }
}

/// Forbids a system call to the calling thread and those that it starts.
fn forbid(call: libc::c_long) {
    let step = |code: u32, jump: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump,
        k: value,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        step(load, 0, 0),
        step(compare, 1, call as u32),
        step(answer, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(answer, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to four instructions that outlive both calls, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn where_io_uring_is_forbidden_it_is_epoll() {
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter] {
        let thread = std::thread::spawn(move || {
            forbid(call);
            assert!(choose(Driver::Uring, 1).is_err());
            let kind = choose(Driver::Auto, 1).unwrap();
            let ran = run(kind, || async {
                yield_now().await;
                true
            });
            (kind, ran.unwrap())
        });
        assert_eq!(thread.join().unwrap(), (DriverKind::Epoll, true));
    }
}

//! Permuting, block copies, broadcasting and sums against their naive twins.

mod common;

use common::*;
use ferrotape_kernels::{
    Write, broadcast::*, layout::*, par::Work, reduce::*, reference::layout as naive,
};

/// All orders of `0..rank`.
fn permutations(rank: usize) -> Vec<Vec<usize>> {
    if rank == 0 {
        return vec![vec![]];
    }
    let longer = |shorter: Vec<usize>| {
        (0..rank).map(move |at| {
            let mut order = shorter.clone();
            order.insert(at, rank - 1);
            order
        })
    };
    permutations(rank - 1).into_iter().flat_map(longer).collect()
}

const SHAPES: [&[usize]; 12] = [
    &[],
    &[1],
    &[7],
    &[3, 5],
    &[33, 20],
    &[1, 6],
    &[2, 3, 4],
    &[5, 1, 17],
    &[0, 4],
    &[3, 0, 2],
    &[2, 3, 4, 5],
    &[2, 1, 3, 2, 2],
];

#[test]
fn permute_equals_the_naive_twin_for_every_order_of_axes() {
    for shape in SHAPES {
        let x = random(shape.iter().product(), 1);
        for axes in permutations(shape.len()) {
            let y = both_writes(x.len(), |y, write| permute(y, write, &x, shape, &axes));
            assert_eq!(f64s(&y), naive::permute(&f64s(&x), shape, &axes), "{shape:?} {axes:?}");
        }
    }
}

/// destination shape and offset, source shape and offset, block
type Block<'a> = [&'a [usize]; 5];

#[test]
fn block_copies_equal_the_naive_twin_and_leave_the_rest_alone() {
    let blocks: [Block; 8] = [
        [&[], &[], &[], &[], &[]],
        [&[9], &[2], &[5], &[1], &[4]],
        [&[4, 6], &[1, 2], &[3, 3], &[0, 0], &[3, 3]],
        [&[4, 3], &[0, 0], &[8, 3], &[4, 0], &[4, 3]],
        [&[2, 9, 4], &[0, 3, 0], &[2, 5, 4], &[0, 0, 0], &[2, 5, 4]],
        [&[3, 3], &[0, 2], &[3, 4], &[0, 1], &[3, 1]],
        [&[2, 2], &[1, 1], &[2, 2], &[2, 0], &[0, 1]],
        [&[2, 3, 6, 7], &[0, 0, 1, 1], &[2, 3, 4, 5], &[0; 4], &[2, 3, 4, 5]],
    ];
    for [dst_shape, dst_at, src_shape, src_at, block] in blocks {
        let src = random(src_shape.iter().product(), 1);
        let old = random(dst_shape.iter().product(), 2);
        let mut expected = f64s(&old);
        naive::copy_block(
            &mut expected,
            (dst_shape, dst_at),
            &f64s(&src),
            (src_shape, src_at),
            block,
        );
        let set = guarded(&old, 8e8, |dst| {
            copy_block(dst, dst_shape, dst_at, Write::Set, &src, src_shape, src_at, block);
        });
        assert_eq!(f64s(&set), expected, "{block:?}");
        let add = guarded(&set, 8e8, |dst| {
            copy_block(dst, dst_shape, dst_at, Write::Add, &src, src_shape, src_at, block);
        });
        let mut twice = f64s(&set);
        let double: Vec<f64> = f64s(&src).iter().map(|v| 2.0 * v).collect();
        naive::copy_block(&mut twice, (dst_shape, dst_at), &double, (src_shape, src_at), block);
        assert_eq!(f64s(&add), twice, "{block:?}");
    }
}

/// small shape, large shape
const BROADCASTS: [(&[usize], &[usize]); 14] = [
    (&[], &[]),
    (&[], &[5]),
    (&[1], &[100]),
    (&[3], &[4, 3]),
    (&[4, 1], &[4, 3]),
    (&[70], &[130, 70]),
    (&[1, 7], &[2, 3, 7]),
    (&[2, 1, 7], &[2, 3, 7]),
    (&[5, 1, 1], &[2, 5, 3, 4]),
    (&[2, 1, 3, 1], &[2, 5, 3, 4]),
    (&[1, 5, 1, 4], &[2, 5, 3, 4]),
    (&[3], &[0, 3]),
    (&[1, 3], &[5, 3]),
    (&[0, 1], &[0, 6]),
];

#[test]
fn broadcasting_and_its_adjoint_equal_the_naive_twins() {
    on_every_isa(|_| {
        for (small, large) in BROADCASTS {
            let x = random(small.iter().product(), 1);
            let dy = random(large.iter().product(), 2);
            let y = output(dy.len(), |y| broadcast_to(y, large, &x, small));
            assert_eq!(
                f64s(&y),
                naive::broadcast_to(large, &f64s(&x), small),
                "{small:?} {large:?}"
            );
            let dx = both_writes(x.len(), |dx, write| sum_to(dx, write, small, &dy, large));
            let twin = |dy: Vec<f64>| naive::sum_to(small, &dy, large);
            let terms = dy.len() / x.len().max(1);
            let what = format!("sum_to {small:?} of {large:?}");
            assert_close(&what, &dx, &twin(f64s(&dy)), &twin(abs(&dy)), terms);
        }
    });
}

#[test]
fn sums_over_any_axes_equal_the_naive_twin() {
    on_every_isa(|_| {
        for shape in SHAPES {
            let x = random(shape.iter().product(), 3);
            for subset in 0..1 << shape.len() {
                let axes: Vec<_> =
                    (0..shape.len()).filter(|axis| subset >> axis & 1 == 1).collect();
                let twin = |x: Vec<f64>| naive::sum_axes(&x, shape, &axes);
                let expected = twin(f64s(&x));
                let y = output(expected.len(), |y| sum_axes(y, &x, shape, &axes));
                let (what, terms) = (format!("{shape:?} over {axes:?}"), x.len() / y.len().max(1));
                assert_close(&what, &y, &expected, &twin(abs(&x)), terms);
            }
        }
    });
}

#[test]
fn long_sums_stay_accurate() {
    // A running f32 sum of so many tenths would be off by 1e-3 and more.
    let x = vec![0.1f32; 3_000_000];
    let exact = 3_000_000.0 * f64::from(0.1f32);
    on_every_isa(|_| {
        let sums = [
            output(1, |y| y[0] = sum(&x)),
            output(3, |y| sum_axes(y, &x, &[1_000_000, 3], &[0])),
            output(3, |y| sum_axes(y, &x, &[3, 1_000_000], &[1])),
            output(1, |y| sum_axes(y, &x, &[1000, 3000], &[0, 1])),
        ];
        for sums in sums {
            assert_near(&sums, &vec![exact / sums.len() as f64; sums.len()], 0.0, 1e-6);
        }
    });
    assert_eq!(sum(&[]), 0.0);
}

#[test]
fn sums_of_squares_equal_the_naive_twin() {
    on_every_isa(|_| {
        for len in [0, 1, 7, 31, 32, 33, 1024, 1100, 100_003] {
            let x = random(len, 5);
            let exact = naive::sum_squares(&f64s(&x));
            let squares = sum_squares(&x);
            assert!((squares - exact).abs() <= 1e-6 * exact, "{len}: {squares}, not {exact}");
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e20] {
            assert!(!sum_squares(&[1.0, odd, 2.0]).is_finite(), "{odd}");
        }
    });
}

#[test]
fn thread_count_does_not_change_the_bits() {
    let shape = [37, 50, 117];
    let x = random(shape.iter().product(), 4);
    assert_same_bits("layout", Work::Elements(x.len()), || {
        let mut all = vec![sum(&x), sum_squares(&x) as f32];
        for axes in [&[0][..], &[1], &[2], &[0, 2], &[0, 1], &[1, 2]] {
            let kept: usize = (0..3).filter(|a| !axes.contains(a)).map(|a| shape[a]).product();
            let mut y = vec![0.0; kept];
            sum_axes(&mut y, &x, &shape, axes);
            all.extend(y);
        }
        let mut y = vec![0.0; x.len()];
        permute(&mut y, Write::Set, &x, &shape, &[2, 0, 1]);
        permute(&mut y, Write::Add, &x, &shape, &[1, 0, 2]);
        let block = [36, 48, 114];
        copy_block(&mut y, &shape, &[1, 2, 3], Write::Add, &x, &shape, &[0; 3], &block);
        let mut small = vec![0.0; 37 * 117];
        sum_to(&mut small, Write::Set, &[37, 1, 117], &y, &shape);
        let mut large = vec![0.0; x.len()];
        broadcast_to(&mut large, &shape, &small, &[37, 1, 117]);
        [all, y, small, large].concat()
    });
}

#[test]
#[should_panic(expected = "broadcast_to: shape [3] does not broadcast to [3, 2]")]
fn shapes_that_do_not_broadcast_are_named() {
    broadcast_to(&mut [0.0; 6], &[3, 2], &[0.0; 3], &[3]);
}

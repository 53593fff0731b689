//! Matrix multiplication: `C[m, n] (=|+=) A[m, k] B[k, n]`.
//!
//! Fast paths, the first that fits; capitals are constants of `tuning::gemm`:
//!
//! | when | how |
//! |---|---|
//! | `k` runs along memory in both; A is short, or B one column | `dots`: [`dot`] from both |
//! | rows of B are contiguous; A is short, or both are small | `unpacked`: [`outer`] from both |
//! | a thread's rows of A are at most RESIDENT floats | `resident`: the loops below, inside out |
//! | everything else | `packed`: the loops below |
//!
//! Short for `dots` is fewer rows than depth / DOT_DEPTH, kept within DOT_SHORT; for `unpacked`,
//! than SHORT; for either, where B has more than NEAR floats, than FAR_SHORT. Small is at most
//! SMALL floats. `unpacked` copies the last panel of B if it is narrow, goes row by row up to a
//! depth of SHALLOW, and takes 8 or 4 vectors of columns at a time for one or two rows (`across`).
//! The packed ones read A where it lies if its rows are contiguous and the thread has at most FEW
//! columns of C.
//!
//! ```text
//! loop 5: jc over n by NC        the columns whose packed B fits the L3 cache
//!   loop 4: pc over k by KC      pack B[pc.., jc..] into panels of two vectors  (a panel: L1)
//!     loop 3: ic over m by MC    pack A[ic.., pc..] into slivers of a few rows  (all of them: L2)
//!       loop 2: jr over panels
//!         loop 1: ir over slivers
//!           tile: C[sliver, panel] += sliver * panel, over KC, in registers
//! ```
//!
//! KC is `tile::PANEL` divided by the width of a panel, at most. The numbering is that of Goto and
//! van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

#![allow(clippy::too_many_arguments)] // a matrix is a pointer and a step

use crate::{
    Write, elements,
    isa::Isa,
    par::{self, Shared, Work},
    scratch,
    simd::{MAX_LANES, Simd, SimdKernel, prefetch},
    tile::{
        MAX_ROWS, Tile, VECTORS, dot, emit, outer, panel, row_tiles, sized, transpose,
        transpose_into,
    },
    tuning::{
        gemm::{
            AT_ONCE, DOT_DEPTH, DOT_SHORT, FAR_SHORT, FEW, MC, NC, NEAR, RESIDENT, SHALLOW, SHORT,
            SMALL,
        },
        tile::PANEL,
    },
};
use std::ops::Range;

/// A matrix in a slice: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance from a row to the next.
    pub row_stride: usize,
    /// Distance from a column to the next.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// `data` as a contiguous row-major matrix.
    ///
    /// # Panics
    /// If `data` has not `rows * cols` elements.
    #[track_caller]
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            Some(data.len()),
            rows.checked_mul(cols),
            "Mat::row_major: data must hold {rows} x {cols} elements"
        );
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    #[track_caller]
    fn check(&self, name: &str) {
        // With strides of 0 a short slice can be a matrix beyond all memory, but not its panels.
        elements(&[self.rows, self.cols, MAX_ROWS.max(VECTORS * MAX_LANES)]);
        if self.rows > 0 && self.cols > 0 {
            let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
            let [row, col] = [last(self.rows, self.row_stride), last(self.cols, self.col_stride)];
            let last = row.zip(col).and_then(|(row, col)| row.checked_add(col));
            assert!(
                last.is_some_and(|last| last < self.data.len()),
                "gemm: {name} has {} elements, too few for its shape and strides: {:?} by {:?}",
                self.data.len(),
                [self.rows, self.cols],
                [self.row_stride, self.col_stride]
            );
        }
    }
}

/// `C = A B` or `C += A B`; `c` is contiguous and row-major, `[a.rows, b.cols]`.
///
/// # Panics
/// If `a.cols != b.rows`, or a slice is too short for its shape.
#[track_caller]
pub fn gemm(c: &mut [f32], write: Write, a: Mat, b: Mat) {
    assert_eq!(a.cols, b.rows, "gemm: A has {} columns, B has {} rows", a.cols, b.rows);
    assert_eq!(
        Some(c.len()),
        a.rows.checked_mul(b.cols),
        "gemm: C must hold {} x {} elements",
        a.rows,
        b.cols
    );
    a.check("A");
    b.check("B");
    let (m, k, n) = (a.rows, a.cols, b.cols);
    if k == 0 {
        if write == Write::Set {
            c.fill(0.0);
        }
        return;
    }
    if m == 0 || n == 0 {
        return;
    }
    let isa = Isa::current();
    let out = Shared(c.as_mut_ptr());
    let work = Work::MultiplyAdds(m.saturating_mul(k).saturating_mul(n));
    // Cut the longer side of C, by whole tiles.
    let by_rows = m >= n;
    let (side, step) = if by_rows { (m, MAX_ROWS) } else { (n, VECTORS * MAX_LANES) };
    par::split(work, side.div_ceil(step), (), |units, ()| {
        let piece = units.start * step..(units.end * step).min(side);
        let (rows, cols) = if by_rows { (piece, 0..n) } else { (0..m, piece) };
        // SAFETY: c holds m x n floats in rows of n, and no two pieces share a row and a column.
        unsafe { block(isa, out.get(), n, write, a, b, rows, cols) };
    });
}

/// The part of the product in the given rows and columns of C, on this thread.
///
/// # Safety
/// `c` must be valid for reads and writes as a matrix of `rows.end x c_step` floats, with `cols.end
/// <= c_step`, and the part written to by nobody else. `a` and `b` must be checked and their shapes
/// agree.
pub(crate) unsafe fn block(
    isa: Isa,
    c: *mut f32,
    c_step: usize,
    write: Write,
    a: Mat,
    b: Mat,
    rows: Range<usize>,
    cols: Range<usize>,
) {
    let along_k = a.col_stride == 1 && (b.row_stride == 1 || b.rows == 1);
    // The whole product decides, not the piece of it that this thread has: else the bits would
    // depend on the cut. (Whether a packed A is `resident` may depend on the piece: both orders of
    // loops form the same sums.)
    let [a_len, b_len] = [a.rows * a.cols, b.rows * b.cols];
    let short = |rows| a.rows < if b_len <= NEAR { rows } else { FAR_SHORT };
    let dots = (a.cols / DOT_DEPTH).clamp(*DOT_SHORT.start(), *DOT_SHORT.end());
    let algorithm = if along_k && (b.cols == 1 || short(dots)) {
        Algorithm::Dot
    } else if b.col_stride == 1 && (short(SHORT) || a_len.max(b_len) <= SMALL) {
        Algorithm::Unpacked
    } else {
        Algorithm::Packed
    };
    isa.dispatch(Block { c, c_step, write, a, b, rows, cols, algorithm });
}

enum Algorithm {
    Dot,
    Unpacked,
    Packed,
}

struct Block<'a> {
    c: *mut f32,
    c_step: usize,
    write: Write,
    a: Mat<'a>,
    b: Mat<'a>,
    rows: Range<usize>,
    cols: Range<usize>,
    algorithm: Algorithm,
}

impl SimdKernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `block` is the only one to make a Block, and was promised that A and B are whole,
        // have these rows and columns, and that this part of C may be written.
        unsafe {
            match self.algorithm {
                Algorithm::Dot => self.dots(s),
                Algorithm::Unpacked => self.unpacked(s),
                Algorithm::Packed if self.rows.len() * self.a.cols <= RESIDENT => self.resident(s),
                Algorithm::Packed => self.packed(s),
            }
        }
    }
}

impl Block<'_> {
    /// Both operands contiguous along `k`: tiles of 4 rows of A by 3 columns of B, and as many
    /// products in flight where there are fewer rows or only one column.
    ///
    /// # Safety
    /// That of [`block`].
    #[inline(always)]
    unsafe fn dots<S: Simd>(&self, s: S) {
        let mut i = self.rows.start;
        while i < self.rows.end {
            // SAFETY: each covers rows of A from i on, as many as there are, and all columns of B.
            let high = unsafe {
                match self.rows.end - i {
                    8.. if self.cols.len() == 1 => self.dot_rows::<S, 8, 1>(s, i),
                    4.. => self.dot_rows::<S, 4, 3>(s, i),
                    3 => self.dot_rows::<S, 3, 4>(s, i),
                    2 => self.dot_rows::<S, 2, 6>(s, i),
                    _ => self.dot_rows::<S, 1, 8>(s, i),
                }
            };
            i += high;
        }
    }

    /// `I` rows of A from `i` on: `J` columns at a time, then the rest one by one. Returns `I`.
    ///
    /// # Safety
    /// That of [`block`]; rows `i..i + I` are among those of the piece.
    #[inline(always)]
    unsafe fn dot_rows<S: Simd, const I: usize, const J: usize>(&self, s: S, i: usize) -> usize {
        let mut j = self.cols.start;
        // SAFETY: the rows are inside A, the columns inside B.
        unsafe {
            while j + J <= self.cols.end {
                self.dot_tile::<S, I, J>(s, i, j);
                j += J;
            }
            while j < self.cols.end {
                self.dot_tile::<S, I, 1>(s, i, j);
                j += 1;
            }
        }
        I
    }

    /// # Safety
    /// That of [`block`]; rows `i..i + I` and columns `j..j + J` are among those of the piece.
    #[inline(always)]
    unsafe fn dot_tile<S: Simd, const I: usize, const J: usize>(&self, s: S, i: usize, j: usize) {
        // SAFETY: rows i .. i + I of A and columns j .. j + J of B exist and have a.cols elements
        // each; so do these places of C.
        unsafe {
            let a = std::array::from_fn(|r| self.a.data.as_ptr().add((i + r) * self.a.row_stride));
            let b = std::array::from_fn(|r| self.b.data.as_ptr().add((j + r) * self.b.col_stride));
            let sums: [[f32; J]; I] = dot(s, self.a.cols, a, b);
            for (r, row) in sums.iter().enumerate() {
                for (q, &sum) in row.iter().enumerate() {
                    let c = self.c.add((i + r) * self.c_step + j + q);
                    *c = if self.write == Write::Add { *c + sum } else { sum };
                }
            }
        }
    }

    /// Few rows, or small matrices: B is read where it lies; only a last narrow panel is copied.
    ///
    /// # Safety
    /// That of [`block`].
    #[inline(always)]
    unsafe fn unpacked<S: Simd>(&self, s: S) {
        let wide = panel::<S>();
        let (depth, b_step) = (self.a.cols, self.b.row_stride);
        let whole = self.cols.len() / wide * wide;
        let tail = self.cols.start + whole;
        let mut packed = scratch::floats(if tail < self.cols.end { depth * wide } else { 0 });
        if tail < self.cols.end {
            self.pack_b(s, &mut packed, 0..depth, tail..self.cols.end);
        }
        // With so few products per element of C, writing C is what takes time, and fastest one row
        // at a time. Else each panel of B is read once.
        let step = if depth <= SHALLOW { 1 } else { self.rows.len() };
        for i in self.rows.clone().step_by(step) {
            let rows = i..self.rows.end.min(i + step);
            let mut j = self.cols.start;
            // One or two rows have registers left for more columns.
            // SAFETY: so many columns of B and C are there, in every row.
            unsafe {
                match rows.len() {
                    1 => {
                        while j + 8 * S::LANES <= tail {
                            self.across::<S, 1, 8>(s, i, j);
                            j += 8 * S::LANES;
                        }
                    }
                    2 => {
                        while j + 4 * S::LANES <= tail {
                            self.across::<S, 2, 4>(s, i, j);
                            j += 4 * S::LANES;
                        }
                    }
                    _ => {}
                }
                while j < tail {
                    let b = self.b.data.as_ptr().add(j);
                    self.tiles(s, 0..depth, b, b_step, None, rows.clone(), j, self.write);
                    j += wide;
                }
                if tail < self.cols.end {
                    let b = packed.as_ptr();
                    self.tiles(s, 0..depth, b, wide, None, rows.clone(), tail, self.write);
                }
            }
        }
    }

    /// `R` rows from `i` on by `V` vectors of columns from `j` on.
    ///
    /// # Safety
    /// A has these rows, B these columns, and C both.
    #[inline(always)]
    unsafe fn across<S: Simd, const R: usize, const V: usize>(&self, s: S, i: usize, j: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let rows =
                std::array::from_fn(|r| self.a.data.as_ptr().add((i + r) * self.a.row_stride));
            let b = self.b.data.as_ptr().add(j);
            let offsets = (0..self.a.cols).map(|k| k * self.a.col_stride);
            let acc = outer::<S, R, V>(s, offsets, rows, b, self.b.row_stride);
            let c = self.c.add(i * self.c_step + j);
            emit(s, acc, c, self.c_step, V * S::LANES, self.write);
        }
    }

    /// The five loops for an A that is packed as a whole. Each sliver meets all panels of a block
    /// of B before the next one does, so that C is written along its rows: to a C that no cache
    /// holds, that takes three quarters of the time.
    ///
    /// # Safety
    /// That of [`block`].
    #[inline(always)]
    unsafe fn resident<S: Simd>(&self, s: S) {
        let wide = panel::<S>();
        let kc = self.kc::<S>();
        let nc = (RESIDENT / kc / wide * wide).clamp(wide, self.cols.len().next_multiple_of(wide));
        let mut packed_b = scratch::floats(kc * nc);
        let mut packed_a = scratch::floats(self.rows.len() * self.a.cols + S::LANES);
        let pack_a = self.cols.len() > FEW || self.a.col_stride != 1;
        let part = |start: usize| start..(start + kc).min(self.a.cols);
        // SAFETY: every range is inside its matrix, and the buffers hold whole panels and slivers.
        unsafe {
            if pack_a {
                for pc in (0..self.a.cols).step_by(kc).map(part) {
                    let to = &mut packed_a[self.rows.len() * pc.start..];
                    self.pack_a(s, to, self.rows.clone(), pc);
                }
            }
            for jc in self.cols.clone().step_by(nc) {
                let jc = jc..(jc + nc).min(self.cols.end);
                for pc in (0..self.a.cols).step_by(kc).map(part) {
                    let write = if pc.start > 0 { Write::Add } else { self.write };
                    let slivers = pack_a.then(|| packed_a.as_ptr().add(self.rows.len() * pc.start));
                    self.pack_b(s, &mut packed_b, pc.clone(), jc.clone());
                    for tile in row_tiles::<S>(self.rows.len()) {
                        let slivers = slivers.map(|a| a.add(tile.start * pc.len()));
                        let ic = self.rows.start + tile.start..self.rows.start + tile.end;
                        for (jr, j) in jc.clone().step_by(wide).enumerate() {
                            let b = packed_b.as_ptr().add(jr * pc.len() * wide);
                            self.tiles(s, pc.clone(), b, wide, slivers, ic.clone(), j, write);
                        }
                    }
                }
            }
        }
    }

    /// Depth of a packed block: `k` divides into equal parts of at most KC, with which a panel of B
    /// has PANEL floats.
    fn kc<S: Simd>(&self) -> usize {
        self.a.cols.div_ceil(self.a.cols.div_ceil(PANEL / panel::<S>()))
    }

    /// The five loops.
    ///
    /// # Safety
    /// That of [`block`].
    #[inline(always)]
    unsafe fn packed<S: Simd>(&self, s: S) {
        let wide = panel::<S>();
        let kc = self.kc::<S>();
        let nc = NC.min(self.cols.len().next_multiple_of(wide));
        let mc = MC.min(self.rows.len().next_multiple_of(S::TILE_ROWS));
        let (mut packed_b, mut packed_a) =
            (scratch::floats(kc * nc), scratch::floats(mc * kc + S::LANES));
        for jc in self.cols.clone().step_by(NC) {
            let jc = jc..(jc + NC).min(self.cols.end);
            for pc in (0..self.a.cols).step_by(kc) {
                let pc = pc..(pc + kc).min(self.a.cols);
                let write = if pc.start > 0 { Write::Add } else { self.write };
                // SAFETY: every range is inside its matrix, and the buffers hold whole panels and
                // slivers.
                unsafe {
                    self.pack_b(s, &mut packed_b, pc.clone(), jc.clone());
                    for ic in self.rows.clone().step_by(MC) {
                        let ic = ic..(ic + MC).min(self.rows.end);
                        let mut slivers = None;
                        if self.cols.len() > FEW || self.a.col_stride != 1 {
                            self.pack_a(s, &mut packed_a, ic.clone(), pc.clone());
                            slivers = Some(packed_a.as_ptr());
                        }
                        for (jr, j) in jc.clone().step_by(wide).enumerate() {
                            let b = packed_b.as_ptr().add(jr * pc.len() * wide);
                            self.tiles(s, pc.clone(), b, wide, slivers, ic.clone(), j, write);
                        }
                    }
                }
            }
        }
    }

    /// Loop 1: one panel of B, at column `j` of C, against all slivers of the rows `ic`.
    ///
    /// # Safety
    /// `b` must be readable for `pc.len()` rows of a panel, `b_step` apart; `packed_a` must hold
    /// the slivers.
    #[inline(always)]
    unsafe fn tiles<S: Simd>(
        &self,
        s: S,
        pc: Range<usize>,
        b: *const f32,
        b_step: usize,
        packed_a: Option<*const f32>,
        ic: Range<usize>,
        j: usize,
        write: Write,
    ) {
        for tile in row_tiles::<S>(ic.len()) {
            let i = ic.start + tile.start;
            // SAFETY: the sliver's rows and columns are inside A, or packed by pack_a in this
            // layout.
            let (a, row_stride, col_stride) = unsafe {
                match packed_a {
                    Some(packed) => (packed.add(tile.start * pc.len()), 1, tile.len()),
                    None => {
                        let at = i * self.a.row_stride + pc.start * self.a.col_stride;
                        (self.a.data.as_ptr().add(at), self.a.row_stride, self.a.col_stride)
                    }
                }
            };
            let cols = (self.cols.end - j).min(panel::<S>());
            // SAFETY: as promised for b; C has these rows and columns.
            unsafe {
                let c = self.c.add(i * self.c_step + j);
                let (depth, c_step) = (pc.len(), self.c_step);
                let product =
                    Product { a, row_stride, col_stride, depth, b, b_step, c, c_step, cols, write };
                sized(s, tile.len(), cols, product);
            }
        }
    }

    /// `packed[panel][k][column] = B[k, columns of the panel]`, zero beyond the last column.
    #[inline(always)]
    fn pack_b<S: Simd>(&self, s: S, packed: &mut [f32], pc: Range<usize>, jc: Range<usize>) {
        let wide = panel::<S>();
        let len = pc.len() * wide;
        let Mat { data, row_stride, col_stride, .. } = self.b;
        if col_stride == 1 {
            for (j, to) in jc.clone().step_by(AT_ONCE).zip(packed.chunks_mut(AT_ONCE * pc.len())) {
                for (k, row) in pc.clone().enumerate() {
                    let from = &data[row * row_stride + j..][..AT_ONCE.min(jc.end - j)];
                    for (at, to) in (0..from.len()).step_by(wide).zip(to.chunks_exact_mut(len)) {
                        for v in 0..VECTORS {
                            let at = at + v * S::LANES;
                            prefetch(from.as_ptr().wrapping_add(at + AT_ONCE));
                            let x = s.read(from.get(at..).unwrap_or_default());
                            s.write(&mut to[k * wide + v * S::LANES..], x);
                        }
                    }
                }
            }
            return;
        }
        for (j, to) in jc.clone().step_by(wide).zip(packed.chunks_exact_mut(len)) {
            let cols = wide.min(jc.end - j);
            if row_stride == 1 {
                if cols < wide {
                    to.fill(0.0);
                }
                let from = &data[j * col_stride + pc.start..];
                assert!(from.len() >= (cols - 1) * col_stride + pc.len());
                let (to, from) = (to.as_mut_ptr(), from.as_ptr());
                // SAFETY: `cols` columns of B are there, as was checked, and `to` is a whole panel
                // of pc.len() rows.
                unsafe {
                    transpose_into(s, to, wide, from, col_stride, cols, pc.len(), Write::Set);
                }
            } else {
                for (k, to) in pc.clone().zip(to.chunks_exact_mut(wide)) {
                    for (q, to) in to.iter_mut().enumerate() {
                        *to = if q < cols {
                            data[k * row_stride + (j + q) * col_stride]
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
    }

    /// `packed[sliver][k][rows of the sliver] = A`, for the slivers that [`row_tiles`] cuts.
    #[inline(always)]
    fn pack_a<S: Simd>(&self, s: S, packed: &mut [f32], ic: Range<usize>, pc: Range<usize>) {
        let Mat { data, row_stride, col_stride, .. } = self.a;
        for tile in row_tiles::<S>(ic.len()) {
            let (i, high) = (ic.start + tile.start, tile.len());
            let to = &mut packed[tile.start * pc.len()..];
            if row_stride == 1 && i + S::LANES <= self.a.rows {
                // Whole vectors: what one leaves beyond its `high` lanes, the next overwrites.
                for k in 0..pc.len() {
                    let x = s.read(&data[i + (pc.start + k) * col_stride..][..S::LANES]);
                    s.write(&mut to[k * high..][..S::LANES], x);
                }
                continue;
            }
            let whole = if col_stride == 1 { pc.len() / S::LANES * S::LANES } else { 0 };
            for k in (0..whole).step_by(S::LANES) {
                let mut square = [s.zero(); 16];
                for (r, row) in square.iter_mut().enumerate().take(high) {
                    *row = s.read(&data[(i + r) * row_stride + pc.start + k..][..S::LANES]);
                }
                transpose(s, &mut square);
                for (j, &column) in square.iter().enumerate().take(S::LANES) {
                    s.write(&mut to[(k + j) * high..][..S::LANES], column);
                }
            }
            for k in whole..pc.len() {
                for (r, to) in to[k * high..][..high].iter_mut().enumerate() {
                    *to = data[(i + r) * row_stride + (pc.start + k) * col_stride];
                }
            }
        }
    }
}

/// A few rows of A, packed or not, times a panel of B.
struct Product {
    a: *const f32,
    row_stride: usize,
    col_stride: usize,
    depth: usize,
    b: *const f32,
    b_step: usize,
    c: *mut f32,
    c_step: usize,
    cols: usize,
    write: Write,
}

impl<S: Simd> Tile<S> for Product {
    #[inline(always)]
    unsafe fn run<const R: usize, const V: usize>(self, s: S) {
        // SAFETY: the caller's promises: R rows of A, a panel of B, R rows of C.
        unsafe {
            for r in 0..R {
                prefetch(self.c.add(r * self.c_step));
            }
            let rows = std::array::from_fn(|r| self.a.add(r * self.row_stride));
            let offsets = (0..self.depth).map(|k| k * self.col_stride);
            let acc = outer::<S, R, V>(s, offsets, rows, self.b, self.b_step);
            emit(s, acc, self.c, self.c_step, self.cols, self.write);
        }
    }
}

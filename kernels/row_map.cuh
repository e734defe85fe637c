/* row_map.cuh - threads over the rows of tables and batches: which thread of the grid takes which pack of a
 * row. Neighbouring threads take neighbouring vectors of one row, so a warp moves whole sectors, and each
 * thread takes several rows at once, so that several loads are under way. */
#ifndef TP_KERNELS_ROW_MAP_CUH
#define TP_KERNELS_ROW_MAP_CUH
#include "kernels/pack.cuh"

/* Blocks of TP_THREADS: `lanes` threads for a piece of a row, `per_pass` rows side by side. A row has one
 * piece unless it has more vectors than a block has threads. */
typedef struct tp_row_map {
    int64_t vectors;
    unsigned lanes, pieces, per_pass;
} tp_row_map;

/* vectors > 0 */
static inline tp_row_map tp_row_map_of(int64_t vectors)
{
    tp_row_map m;
    m.vectors = vectors;
    m.pieces = (unsigned)((vectors + TP_THREADS - 1) / TP_THREADS);
    m.lanes = (unsigned)((vectors + m.pieces - 1) / m.pieces);
    m.per_pass = TP_THREADS / m.lanes;
    return m;
}

/* Blocks for n rows of which each thread takes `passes`. */
static inline unsigned tp_row_blocks(const tp_row_map *m, int64_t n, int passes)
{
    const int64_t rows = (int64_t)m->per_pass * passes;
    return (unsigned)((n + rows - 1) / rows * m->pieces);
}

/* The first row of a thread and its vector there; a thread has one or is left over. */
typedef struct tp_row_place {
    int64_t row, vector;
    bool has_one;
} tp_row_place;

/* `block` counts blocks of rows of `passes` passes, all pieces of one after another. */
__device__ inline tp_row_place tp_row_place_of(const tp_row_map &m, unsigned block, int passes)
{
    const unsigned group = block / m.pieces, piece = block - group * m.pieces, r = threadIdx.x / m.lanes;
    tp_row_place p;
    p.row = (int64_t)group * passes * m.per_pass + r;
    p.vector = (int64_t)piece * m.lanes + (threadIdx.x - r * m.lanes);
    p.has_one = r < m.per_pass && p.vector < m.vectors;
    return p;
}

#endif

#!/bin/sh
# The comparison with other methods in docs/peers.md: makes what is missing in RESULTS, then prints all tables.
#
#     benchmarks/compare.sh PHOTOS RESULTS [HALF] [OURS] [OURS_IN_CELLS]
#
# PHOTOS is a folder made by benchmarks/photos.py. HALF is `test` or `tuning`. OURS are our presets, separated by
# commas; the first is what the others are compared to. OURS_IN_CELLS is one of ours with 7 x 7 cells. Dear methods run
# on fewer photos, and their tables have our figures for the same photos. An interrupted run goes on where it stopped.
#
# In the environment: PYTHON, the interpreter; CHEAP, DEAR, SHAPES, how many photos the cheap and the dear methods
# explain, and how many pictures of shapes there are; PARTS, some of `cheap random cells regions published detections
# figure`, so that several processes can share the work.
set -eu
photos=$1 results=$2 half=${3:-test} ours=${4:-fast}
first=${ours%%,*}
cells=${5:-$first@20x2x7}
cheap=${CHEAP:-72} dear=${DEAR:-12} shapes=${SHAPES:-6}
here=$(dirname "$0")
baselines=28,28/mean,28/black,16

evaluate() {
    "${PYTHON:-python}" "$here/evaluations.py" "$photos" --half "$half" --results "$results" "$@"
}

for part in ${PARTS:-cheap random cells regions published detections figure}; do
    case $part in
    cheap)
        echo "# Gradients, activations and ours"
        evaluate --limit "$cheap" --judges "$baselines" \
            --methods "$ours,draft,draft@3,draft@20,$first@10,\
igospp,grad-cam,layer-cam,ig@10,ig@100,gradient-shap@100,occlusion@7"
        ;;
    random)
        echo "# Random masks"
        evaluate --limit "$dear" --judges "$baselines" --methods "$ours,draft,rise@2000,hsic@1500,occlusion@14"
        ;;
    cells)
        echo "# Searches, in equal cells"
        evaluate --limit "$dear" --judges "7,7/mean,7/black,$baselines,slic100" \
            --methods "greedy@7,search@7,phasewin@7,vx-code@7,$cells"
        ;;
    regions)
        echo "# Searches, in equal superpixels: the mean of our masks over each"
        evaluate --limit "$dear" --judges "slic49,slic49/mean,slic49/black,$baselines,slic100" \
            --methods "greedy-slic@49,search-slic@49,phasewin-slic@49,$ours"
        ;;
    published)
        echo "# The published settings, in their own 224 x 224 cells and in equal ones"
        evaluate --limit "$dear" --judges "own,$baselines" \
            --methods "$ours,published_igos,published_igos+,published"
        ;;
    detections)
        echo "# Detections"
        evaluate --network shapes --limit "$shapes" --judges "own,own/mean,own/black,28,16" \
            --methods "$ours,draft,igospp,odam,ig@100,gradient-shap@100,d-rise@2000,\
greedy@7,search@7,phasewin@7,vx-code@7"
        ;;
    figure)
        echo "# Quality against passes"
        evaluate --limit "$dear" --judges 28 --figure "$results/passes.png" \
            --methods "$ours,$first@5,$first@10,$first@40,draft,draft@2,draft@3,draft@20,\
search@7,search-slic@49,igospp,ig@10,ig@100,grad-cam,layer-cam,\
gradient-shap@100,occlusion@7,occlusion@14,hsic@1500,rise@2000,greedy@7,phasewin@7,vx-code@7,\
greedy-slic@49,phasewin-slic@49,published_igos,published_igos+,published"
        ;;
    *)
        echo "PARTS has no $part" >&2
        exit 2
        ;;
    esac
done

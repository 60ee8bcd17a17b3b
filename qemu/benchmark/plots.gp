# SPDX-License-Identifier: GPL-2.0
# The plots of a benchmark, from the tables beside bench.csv. As qemu/bench runs it:
#
#   gnuplot -e "dir='build/bench'; floor='IPVS-DR'" qemu/benchmark/plots.gp

set terminal svg size 1000,520 dynamic background "white"
set datafile separator ","
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.8 noborder
set grid ytics lc rgb "#cccccc"
set key outside right
set xtics rotate by -35 nomirror
set logscale y
columns = int(system(sprintf("head -1 %s/ratio.csv | tr -cd , | wc -c", dir))) + 1

set ylabel "instructions a request, ".floor." = 1"
set output dir."/ratio.svg"
plot for [i=2:columns] dir."/ratio.csv" using i:xtic(1) title columnheader(i)

set ylabel "instructions a request"
set output dir."/instructions.svg"
plot for [i=2:columns] dir."/instructions.csv" using i:xtic(1) title columnheader(i)

set ylabel "ms to the first byte, median"
set output dir."/first.svg"
plot for [i=2:columns] dir."/first.csv" using i:xtic(1) title columnheader(i)

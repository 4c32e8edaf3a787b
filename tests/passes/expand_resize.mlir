// RUN: expand-resize
// Behind the last layer rows and columns are repeated by movement; what a layer reads, and other factors, stay resizes.
// CHECK:      "hbir.resize_nearest"(%arg0)
// CHECK-NEXT: [[C:%[0-9]+]] = "hbir.clip"
// CHECK-NEXT: "hbir.reshape"([[C]]) <{shape = array<i64: 1, 4, 1, 2, 1, 1>}> : {{.*}} loc("last")
// CHECK-NEXT: "hbir.expand"(%{{.*}}) <{shape = array<i64: 1, 4, 2, 2, 3, 1>}> : {{.*}} loc("last")
// CHECK-NEXT: "hbir.reshape"(%{{.*}}) <{shape = array<i64: 1, 8, 6, 1>}> : {{.*}} loc("last")
// CHECK-NEXT: "hbir.transpose"
// CHECK-NEXT: "hbir.resize_nearest"
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x1xf32>) -> (tensor<1x1x8x6xf32>, tensor<1x6x2x1xf32>)}> ({
  ^bb0(%x: tensor<1x2x2x1xf32>):
    %0 = "hbir.resize_nearest"(%x) <{rows = array<i64: 0, 0, 1, 1>, columns = array<i64: 0, 1>}>
      : (tensor<1x2x2x1xf32>) -> tensor<1x4x2x1xf32>
    %1 = "hbir.clip"(%0) <{min = 0.0 : f64}> : (tensor<1x4x2x1xf32>) -> tensor<1x4x2x1xf32>
    %2 = "hbir.resize_nearest"(%1) <{rows = array<i64: 0, 0, 1, 1, 2, 2, 3, 3>, columns = array<i64: 0, 0, 0, 1, 1, 1>}>
      : (tensor<1x4x2x1xf32>) -> tensor<1x8x6x1xf32> loc("last")
    %3 = "hbir.transpose"(%2) <{permutation = array<i64: 0, 3, 1, 2>}> : (tensor<1x8x6x1xf32>) -> tensor<1x1x8x6xf32>
    %4 = "hbir.resize_nearest"(%1) <{rows = array<i64: 0, 0, 1, 2, 2, 3>, columns = array<i64: 0, 1>}>
      : (tensor<1x4x2x1xf32>) -> tensor<1x6x2x1xf32>
    "func.return"(%3, %4) : (tensor<1x1x8x6xf32>, tensor<1x6x2x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()

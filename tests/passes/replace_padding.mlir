// RUN: replace-padding
// Padding that counts comes before the pool, the overhang of ceil becomes padding that does not count.
// CHECK:      "hbir.pad"(%arg0) <{after = array<i64: 0, 1, 1, 0>, before = array<i64: 0, 1, 1, 0>, mode = "constant"
// CHECK-NEXT: "hbir.avg_pool"(%{{.*}}) <{ceil = false, count_pad = false, {{.*}}pad = array<i64: 0, 0, 0, 0>{{.*}} loc("pool")
// CHECK-NEXT: "hbir.avg_pool"(%{{.*}}) <{ceil = false, count_pad = false, {{.*}}pad = array<i64: 0, 0, 1, 1>
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x5x5x1xf32>) -> tensor<1x3x3x1xf32>}> ({
  ^bb0(%x: tensor<1x5x5x1xf32>):
    %0 = "hbir.avg_pool"(%x) <{kernel = array<i64: 3, 3>, stride = array<i64: 1, 1>, pad = array<i64: 1, 1, 1, 1>,
      ceil = false, count_pad = true}> : (tensor<1x5x5x1xf32>) -> tensor<1x5x5x1xf32> loc("pool")
    %1 = "hbir.avg_pool"(%0) <{kernel = array<i64: 2, 2>, stride = array<i64: 2, 2>, pad = array<i64: 0, 0, 0, 0>,
      ceil = true, count_pad = false}> : (tensor<1x5x5x1xf32>) -> tensor<1x3x3x1xf32>
    "func.return"(%1) : (tensor<1x3x3x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Reflect and edge padding pick rows and columns; padding of axes that are not neighbours stays.
// CHECK:      "hbir.resize_nearest"(%arg0) <{columns = array<i64: 0, 1, 2, 2>, rows = array<i64: 0, 0, 1>}>
// CHECK-NEXT: "hbir.reshape"
// CHECK-NEXT: "hbir.resize_nearest"(%{{.*}}) <{columns = array<i64: 0>, rows = array<i64: 2, 1, 0, 1, 2, 3, 2>}>
// CHECK-NEXT: "hbir.reshape"
// CHECK-NEXT: "hbir.pad"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x3x2xf32>) -> tensor<2x3x7x3xf32>}> ({
  ^bb0(%x: tensor<1x2x3x2xf32>):
    %0 = "hbir.pad"(%x) <{before = array<i64: 0, 1, 0, 0>, after = array<i64: 0, 0, 1, 0>, mode = "edge", value = 0.0 : f64}>
      : (tensor<1x2x3x2xf32>) -> tensor<1x3x4x2xf32>
    %1 = "hbir.pad"(%0) <{before = array<i64: 0, 0, 2, 0>, after = array<i64: 0, 0, 1, 0>, mode = "reflect", value = 0.0 : f64}>
      : (tensor<1x3x4x2xf32>) -> tensor<1x3x7x2xf32>
    %2 = "hbir.pad"(%1) <{before = array<i64: 1, 0, 0, 0>, after = array<i64: 0, 0, 0, 1>, mode = "edge", value = 0.0 : f64}>
      : (tensor<1x3x7x2xf32>) -> tensor<2x3x7x3xf32>
    "func.return"(%2) : (tensor<2x3x7x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()

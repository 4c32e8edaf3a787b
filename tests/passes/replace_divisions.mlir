// RUN: replace-divisions
// By a constant: a product with its reciprocal. By a norm: one table of the sum of squares. By a value: one table more.
// CHECK:      "hbir.mul"(%arg0, %{{.*}}) : {{.*}} loc("scaled")
// CHECK:      [[V:%[0-9]+]] = "hbir.clip"(%arg1) <{min = 2.500000e-01 : f64}>
// CHECK-NEXT: [[R:%[0-9]+]] = "hbir.function"([[V]]) <{function = "rsqrt"}> : {{.*}} loc("normed")
// CHECK-NEXT: "hbir.mul"(%{{.*}}, [[R]])
// CHECK-NEXT: [[Q:%[0-9]+]] = "hbir.function"(%arg1) <{function = "reciprocal"}>
// CHECK-NEXT: "hbir.mul"(%{{.*}}, [[Q]])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2x3xf32>, tensor<2x1xf32>) -> tensor<2x3xf32>}> ({
  ^bb0(%x: tensor<2x3xf32>, %v: tensor<2x1xf32>):
    %c = "hbir.constant"() <{value = BLOB(f32: 3 5 7)}> : () -> tensor<3xf32>
    %0 = "hbir.div"(%x, %c) : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32> loc("scaled")
    %1 = "hbir.function"(%v) <{function = "sqrt"}> : (tensor<2x1xf32>) -> tensor<2x1xf32>
    %2 = "hbir.clip"(%1) <{min = 0.5 : f64}> : (tensor<2x1xf32>) -> tensor<2x1xf32>
    %3 = "hbir.div"(%0, %2) : (tensor<2x3xf32>, tensor<2x1xf32>) -> tensor<2x3xf32> loc("normed")
    %4 = "hbir.div"(%3, %v) : (tensor<2x3xf32>, tensor<2x1xf32>) -> tensor<2x3xf32> loc("divided")
    "func.return"(%4) : (tensor<2x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Integers divide towards zero, and the reciprocal of a float near zero is infinite: both stay.
// CHECK-NOT: hbir.mul
// CHECK:     "hbir.div"
// CHECK:     "hbir.div"
// CHECK-NOT: hbir.mul
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xi32>, tensor<2xf32>) -> (tensor<2xi32>, tensor<2xf32>)}> ({
  ^bb0(%i: tensor<2xi32>, %x: tensor<2xf32>):
    %c = "hbir.constant"() <{value = BLOB(i32: 3 5)}> : () -> tensor<2xi32>
    %t = "hbir.constant"() <{value = BLOB(f32: 1 1e-45)}> : () -> tensor<2xf32>
    %0 = "hbir.div"(%i, %c) : (tensor<2xi32>, tensor<2xi32>) -> tensor<2xi32>
    %1 = "hbir.div"(%x, %t) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%0, %1) : (tensor<2xi32>, tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// Between fake quants a new value would have no grid: the division of a model that has its grids stays.
// CHECK:     "hbir.div"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>}> ({
  ^bb0(%x: tensor<2xf32>, %y: tensor<2xf32>):
    %q = "qat.fake_quant"(%y) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<2xf32>) -> tensor<2xf32>
    %0 = "hbir.div"(%x, %q) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%0) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
